// moleculer over Redis, AMQP or TCP. Its argument is that of the programs in Python beside it:
// `serve URL` or `call URL`, where `tcp:PORT,PORT` are the server's and the caller's own port;
// `calling.py` says how it is driven.
"use strict";

const readline = require("node:readline");
const { ServiceBroker } = require("moleculer");

const TEXT = "x".repeat(100);
const RECORD = { id: 4711, name: "Ada Lovelace", tags: ["a", "b"], score: 1.5, note: "x".repeat(30) };
const [what, url] = process.argv.slice(2);
// Over TCP a call carries RECORD, over a broker TEXT.
const [ACTION, PARAMS, ANSWER] = url.startsWith("tcp:")
	? ["bench.record", RECORD, Object.values(RECORD)]
	: ["bench.echo", { text: TEXT }, TEXT];

function transporter() {
	// Its default prefetch of 1 halves its own speed.
	if (url.startsWith("amqp")) return { type: "AMQP", options: { url, prefetch: 100 } };
	if (!url.startsWith("tcp:")) return url;
	const [server, client] = url.slice("tcp:".length).split(",");
	const urls = [`127.0.0.1:${server}/server`, `127.0.0.1:${client}/client`];
	return { type: "TCP", options: { udpDiscovery: false, urls } };
}

async function measure(broker, callers, seconds) {
	const began = performance.now();
	const until = began + seconds * 1000;
	let count = 0;
	async function work() {
		while (performance.now() < until) {
			await broker.call(ACTION, PARAMS);
			count++;
		}
	}
	await Promise.all(Array.from({ length: callers }, work));
	return (count / (performance.now() - began)) * 1000;
}

async function main() {
	const broker = new ServiceBroker({
		nodeID: what === "serve" ? "server" : "client",
		transporter: transporter(),
		logger: false,
		metrics: false,
	});
	if (what === "serve") {
		const record = ({ params: { id, name, tags, score, note } }) => [id, name, tags, score, note];
		const actions = { echo: (ctx) => ctx.params.text, record };
		broker.createService({ name: "bench", actions });
	}
	await broker.start();
	if (what === "call") {
		await broker.waitForServices("bench", 30000);
		const answer = await broker.call(ACTION, PARAMS);
		if (JSON.stringify(answer) !== JSON.stringify(ANSWER)) {
			throw new Error(`the answer is ${answer}`);
		}
	}
	console.log("ready");
	for await (const line of readline.createInterface({ input: process.stdin })) {
		const [callers, seconds] = line.split(" ").map(Number);
		console.log(await measure(broker, callers, seconds));
	}
	await broker.stop();
	process.exit(0);
}

main();
