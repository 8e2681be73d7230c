"""The generated code is what proto/ says today: nobody edits the one and forgets the other."""

import importlib
import importlib.util
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from grpc_tools import protoc

ROOT = Path(__file__).parents[2]
PROTO = ROOT / "proto"
INCLUDED = (
    Path(str(importlib.util.find_spec("grpc_tools").submodule_search_locations[0])) / "_proto"
)


def sources() -> list[str]:
    return sorted(str(file.relative_to(PROTO)) for file in PROTO.rglob("*.proto"))


def compiled(target: Path) -> dict[str, FileDescriptorProto]:
    """Compile proto/ and return the descriptor of each file."""
    paths = (f"--proto_path={PROTO}", f"--proto_path={INCLUDED}")
    assert protoc.main(["protoc", *paths, f"--descriptor_set_out={target}", *sources()]) == 0
    files = FileDescriptorSet.FromString(target.read_bytes()).file
    return {file.name: without_json_names(file) for file in files}


def without_json_names(file: FileDescriptorProto) -> FileDescriptorProto:
    """Drop what protoc writes into descriptor sets and leaves out of Python: it is derived."""
    messages = list(file.message_type)
    while messages:
        message = messages.pop()
        messages += message.nested_type
        for field in message.field:
            field.ClearField("json_name")
    return file


def generated(name: str):
    return importlib.import_module(name.removesuffix(".proto").replace("/", ".") + "_pb2")


def test_the_generated_package_matches_the_protocol(tmp_path):
    wanted = compiled(tmp_path / "set.binpb")
    assert wanted
    for name, descriptor in wanted.items():
        held = FileDescriptorProto.FromString(generated(name).DESCRIPTOR.serialized_pb)
        assert without_json_names(held) == descriptor, f"{name}: run ./dev proto"


def test_the_generated_package_holds_nothing_of_protocols_past():
    modules = {f"{Path(name).stem}_pb2" for name in sources()}
    found = {file.stem for file in (ROOT / "meshnode" / "v1").glob("*_pb2.py")}
    assert found == modules, "run ./dev proto"
