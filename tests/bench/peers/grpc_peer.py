"""grpcio's synchronous server and channel, with text in place of protobuf: over TCP as its
documentation has it, or at a path."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import grpc
from calling import answer_with_threads, wait_for_end


def main(what: str, where: str) -> None:
    address = f"unix:{where}" if where.startswith("/") else where
    if what == "serve":
        method = grpc.unary_unary_rpc_method_handler(
            lambda text, context: text,
            request_deserializer=bytes.decode,
            response_serializer=str.encode,
        )
        handler = grpc.method_handlers_generic_handler("bench", {"echo": method})
        server = grpc.server(ThreadPoolExecutor(16))
        server.add_generic_rpc_handlers((handler,))
        server.add_insecure_port(address)
        server.start()
        wait_for_end()
        server.stop(0).wait()
        return
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_unary(
            "/bench/echo", request_serializer=str.encode, response_deserializer=bytes.decode
        )
        answer_with_threads(lambda: call)


if __name__ == "__main__":
    main(*sys.argv[1:])
