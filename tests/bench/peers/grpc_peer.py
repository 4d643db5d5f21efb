"""grpcio's synchronous server and channel over a unix socket, with text in place of protobuf."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import grpc
from calling import answer_with_threads, wait_for_end


def main(what: str, path: str) -> None:
    if what == "serve":
        method = grpc.unary_unary_rpc_method_handler(
            lambda text, context: text,
            request_deserializer=bytes.decode,
            response_serializer=str.encode,
        )
        handler = grpc.method_handlers_generic_handler("bench", {"echo": method})
        server = grpc.server(ThreadPoolExecutor(16))
        server.add_generic_rpc_handlers((handler,))
        server.add_insecure_port(f"unix:{path}")
        server.start()
        wait_for_end()
        server.stop(0).wait()
        return
    with grpc.insecure_channel(f"unix:{path}") as channel:
        call = channel.unary_unary(
            "/bench/echo", request_serializer=str.encode, response_deserializer=bytes.decode
        )
        answer_with_threads(lambda: lambda text: call(text, timeout=10.0))


if __name__ == "__main__":
    main(*sys.argv[1:])
