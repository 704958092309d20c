#!/usr/bin/env python3
"""A whole Cairn client in another language, on the eight plain calls of the protocol.

    example_client.py [--master HOST:PORT] upload FILE [NAME]
    example_client.py [--master HOST:PORT] download NAME OUT
    example_client.py [--master HOST:PORT] list

Needs `pip install grpcio grpcio-tools`. The stubs are made from proto/proto/*.proto when it starts.
What it uploads shows up in the mount, what was copied into the mount it can download.
"""

import argparse
import hashlib
import importlib
import os
import pathlib
import sys
import tempfile

try:
    import grpc
    from grpc_tools import protoc
except ImportError:
    sys.exit("example_client.py: the Python packages are missing: pip install grpcio grpcio-tools")

PROTO_DIR = pathlib.Path(__file__).resolve().parent.parent / "proto" / "proto"
DEADLINE = 30  # seconds for one call
OPTIONS = [
    ("grpc.max_receive_message_length", 20 * 1024 * 1024),
    ("grpc.max_send_message_length", 20 * 1024 * 1024),
]


def load_stubs():
    """Generates the stubs into a directory that lives as long as this process."""
    out = tempfile.TemporaryDirectory(prefix="cairn-stubs-")
    files = sorted(str(path) for path in PROTO_DIR.glob("*.proto"))
    arguments = ["protoc", f"-I{PROTO_DIR}", f"--python_out={out.name}", f"--grpc_python_out={out.name}"]
    if not files or protoc.main(arguments + files) != 0:
        sys.exit(f"example_client.py: cannot make stubs from {PROTO_DIR}")
    sys.path.insert(0, out.name)
    return out, importlib.import_module("cairn_pb2"), importlib.import_module("cairn_pb2_grpc")


class Client:
    """The flow of a plain client: chunks first, then the manifest that names them."""

    def __init__(self, master):
        self._stub_dir, self.pb, self._grpc = load_stubs()
        self._metadata = ()
        token_file = os.environ.get("CAIRN_TOKEN_FILE")
        if token_file:
            token = pathlib.Path(token_file).read_text(encoding="ascii").strip()
            self._metadata = (("authorization", f"Bearer {token}"),)
        self._master = self._grpc.MasterServiceStub(grpc.insecure_channel(master, OPTIONS))
        self._nodes = {}

    def _call(self, method, request):
        return method(request, timeout=DEADLINE, metadata=self._metadata)

    def _node(self, target):
        address = f"{target.host}:{target.port}"
        if address not in self._nodes:
            channel = grpc.insecure_channel(address, OPTIONS)
            self._nodes[address] = self._grpc.StorageServiceStub(channel)
        return self._nodes[address]

    def chunk_size(self):
        """The chunk size of this file system: every chunk but a file's last has it."""
        request = self.pb.HelloRequest(version=1)
        return self._call(self._master.Hello, request).chunk_size

    def put_chunk(self, data):
        """Stores one chunk on each of its targets and returns its id."""
        chunk_id = hashlib.sha256(data).hexdigest()
        request = self.pb.PutTargetsRequest(chunk_id=chunk_id)
        targets = self._call(self._master.RequestPutTargets, request).targets
        if not targets:
            sys.exit("example_client.py: no storage node is up")
        for target in targets:
            self._call(self._node(target).PutChunk, self.pb.PutChunkRequest(chunk_id=chunk_id, data=data))
        return chunk_id

    def get_chunk(self, chunk_id):
        """Reads one chunk from the first node that gives the right bytes."""
        request = self.pb.GetTargetsRequest(chunk_id=chunk_id)
        failures = []
        for target in self._call(self._master.RequestGetTargets, request).targets:
            where = f"{target.host}:{target.port}"
            try:
                data = self._call(self._node(target).GetChunk, self.pb.GetChunkRequest(chunk_id=chunk_id)).data
            except grpc.RpcError as error:
                failures.append(f"{where}: {error.code().name}")
                continue
            if hashlib.sha256(data).hexdigest() == chunk_id:
                return data
            failures.append(f"{where}: wrong bytes")
        sys.exit(f"example_client.py: chunk {chunk_id} cannot be read ({'; '.join(failures) or 'no node has it'})")

    def upload(self, path, name):
        size = self.chunk_size()
        with open(path, "rb") as file:
            chunks = [self.put_chunk(data) for data in iter(lambda: file.read(size), b"")]
        self._call(self._master.AnnounceManifest, self.pb.ManifestRequest(filename=name, chunks=chunks))
        print(f"uploaded {path} as {name}: {len(chunks)} chunks")

    def chunks_of(self, name):
        token = ""
        while True:
            request = self.pb.GetManifestRequest(filename=name, page_token=token)
            page = self._call(self._master.GetManifest, request)
            yield from page.chunks
            token = page.next_page_token
            if not token:
                return

    def download(self, name, out):
        partial = f"{out}.part"
        with open(partial, "wb") as file:
            for chunk_id in self.chunks_of(name):
                file.write(self.get_chunk(chunk_id))
        os.replace(partial, out)
        print(f"downloaded {name} to {out}")

    def list(self):
        token = ""
        while True:
            page = self._call(self._master.ListFiles, self.pb.ListFilesRequest(page_token=token))
            for name in page.filenames:
                print(name)
            token = page.next_page_token
            if not token:
                return


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    master = os.environ.get("CAIRN_MASTER", "127.0.0.1:9000")
    parser.add_argument("--master", metavar="HOST:PORT", default=master)
    anywhere = argparse.ArgumentParser(add_help=False)
    anywhere.add_argument("--master", metavar="HOST:PORT", default=argparse.SUPPRESS)
    verbs = parser.add_subparsers(dest="verb", required=True)
    upload = verbs.add_parser("upload", parents=[anywhere], help="store FILE under NAME (default: its own name)")
    upload.add_argument("file")
    upload.add_argument("name", nargs="?")
    download = verbs.add_parser("download", parents=[anywhere], help="write the file NAME to OUT")
    download.add_argument("name")
    download.add_argument("out")
    verbs.add_parser("list", parents=[anywhere], help="print the names of all files")
    options = parser.parse_args()
    client = Client(options.master)
    try:
        if options.verb == "upload":
            client.upload(options.file, options.name or os.path.basename(options.file))
        elif options.verb == "download":
            client.download(options.name, options.out)
        else:
            client.list()
    except grpc.RpcError as error:
        sys.exit(f"example_client.py: {error.code().name}: {error.details()}")
    except OSError as error:
        sys.exit(f"example_client.py: {error}")


if __name__ == "__main__":
    main()
