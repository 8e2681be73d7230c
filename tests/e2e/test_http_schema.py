"""The API keeps to its OpenAPI document whatever it is sent: no 5xx, no status nor shape unsaid."""

from contextlib import suppress

import pytest
import schemathesis
from e2e.web import door_of, gateways
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from jsonschema_rs import meta
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks as openapi

CHECKS = [
    not_a_server_error,
    openapi.status_code_conformance,
    openapi.content_type_conformance,
    openapi.response_headers_conformance,
    openapi.response_schema_conformance,
    openapi.negative_data_rejection,
    openapi.unsupported_method,
]
EXAMPLES = 40  # of each operation


@pytest.fixture(scope="module")
def described(shared_fleet):
    (node,) = gateways(shared_fleet, "described")
    assert node.call("run", "--detach", "--agent-id", "123", "--", "sleep", "600").code == 0
    door = door_of(node, "--action", "read", "--action", "steer", "--action", "register")
    document = door.ask("GET", "/openapi.json")
    schema = schemathesis.openapi.from_dict(document.json)
    schema.config.update(base_url=f"http://{door.address}")
    schema.config.update(headers={"Authorization": f"Bearer {door.key}"})
    rejection = schema.config.checks.negative_data_rejection
    rejection.expected_statuses = [*rejection.expected_statuses, "413"]
    return schema


def operations(schema):
    return [found.ok() for found in schema.get_all_operations()]


@pytest.mark.parametrize("mode", list(GenerationMode), ids=str)
def test_every_answer_is_as_documented(described, mode):
    tried = 0
    for operation in operations(described):

        @settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy(generation_mode=mode))
        def holds(case):
            nonlocal tried
            tried += 1
            case.call_and_validate(checks=CHECKS)

        with suppress(Unsatisfiable):  # nothing about it can be wrong: it takes no parameters
            holds()
    assert tried >= EXAMPLES


def test_the_document_shows_an_example_of_what_is_sent_and_answered(described):
    for path, operations in described.raw_schema["paths"].items():
        for method, operation in operations.items():
            assert operation["summary"], path
            assert {"400", "401", "429"} <= set(operation["responses"])
            if "requestBody" in operation:
                said = operation["requestBody"]["content"]["application/json"]
                assert said["example"], (method, path)


def test_the_document_is_valid_and_names_nothing_that_is_not_in_it(described):
    document = described.raw_schema
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert "422" not in operation["responses"], path
            names = [(one["name"], one["in"]) for one in operation.get("parameters", ())]
            assert len(names) == len(set(names)), path
    schemas = document["components"]["schemas"]
    for name, schema in schemas.items():
        assert meta.is_valid(schema), name
    referred = {one.rpartition("/")[2] for one in references(document)}
    assert referred <= schemas.keys()
    assert "Problem" in referred


def test_no_object_is_left_without_its_fields(described):
    """Typed clients are made of the document: of what has neither, every field is `never`."""
    schemas = described.raw_schema["components"]["schemas"]
    found = [one for one in parts_of(described.raw_schema) if one.get("type") == "object"]
    assert len(found) > len(schemas)
    assert [one for one in found if not {"properties", "additionalProperties"} & one.keys()] == []
    assert schemas["Health"]["properties"]["sessions"]["required"] == ["active", "max"]


def parts_of(value):
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    here = [value] if isinstance(value, dict) else []
    return here + [part for one in inner for part in parts_of(one)]


def references(value):
    if isinstance(value, dict):
        return [*references(list(value.values())), *([value["$ref"]] if "$ref" in value else ())]
    return [one for each in value for one in references(each)] if isinstance(value, list) else []
