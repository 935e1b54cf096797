"""Protobuf's two formats, with Google's own library as the judge."""

from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

from alexnet_deploy.importing.caffe_network import (
    alexnet_path,
    layers_in,
    stated_network,
    transform_in,
)
from alexnet_deploy.importing.caffe_schema import NET
from alexnet_deploy.importing.messages import Message, MessageError
from alexnet_deploy.importing.prototxt import parse_prototxt
from alexnet_deploy.importing.wire_format import parse_message
from tests.support.caffe_networks import (
    IS_NORM_FIRST,
    OLD_TYPES,
    in_old_format,
    layers_of,
    train_val,
)
from tests.support.caffe_writer import ENUMERATORS, TABLES, binary, prototxt

FIELD = descriptor_pb2.FieldDescriptorProto
SCALARS = {"text": FIELD.TYPE_STRING, "int": FIELD.TYPE_INT64, "float": FIELD.TYPE_FLOAT}
ENUMERATIONS = {
    "pool": ["MAX", "AVE"],
    "phase": ["TRAIN", "TEST"],
    "backend": ["LEVELDB", "LMDB"],
    "norm_region": ["ACROSS_CHANNELS", "WITHIN_CHANNEL"],
}


def network_class() -> Any:
    """Return Google's class of a network, made of the writer's tables."""
    file = descriptor_pb2.FileDescriptorProto(name="caffe.proto", package="caffe", syntax="proto2")
    for table, fields in TABLES.items():
        message = file.message_type.add(name=table)
        for name, (number, kind) in fields.items():
            if number in {field.number for field in message.field}:
                continue  # another form of the same field
            field = message.field.add(name=name, number=number, label=FIELD.LABEL_REPEATED)
            values = dict(enumerate(ENUMERATIONS.get(name, [])))
            if (table, name) == ("old_layer", "type"):
                values = {ENUMERATORS[word]: word for word in OLD_TYPES.values()}
            if values:
                enumeration = message.enum_type.add(name=f"{name}_enum")
                for value, word in values.items():
                    enumeration.value.add(name=word, number=value)
                field.type = FIELD.TYPE_ENUM
                field.type_name = f".caffe.{table}.{name}_enum"
            elif name == "mirror":
                field.type = FIELD.TYPE_BOOL
            elif kind in TABLES:
                field.type, field.type_name = FIELD.TYPE_MESSAGE, f".caffe.{kind}"
            else:
                field.type = SCALARS.get(kind, FIELD.TYPE_INT64)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("caffe.net"))


def said_of(net: Message) -> object:
    """Return what a message says of its network."""
    layers = layers_in(net)
    path = alexnet_path(layers)
    return stated_network(path, transform_in(layers), None, (256, 9216)), [str(x) for x in layers]


@pytest.mark.parametrize("is_old", [False, True])
@pytest.mark.parametrize("preset", IS_NORM_FIRST)
def test_googles_library_and_ours_read_the_same_network(preset: str, is_old: bool) -> None:
    net = train_val(layers_of(preset))
    net = in_old_format(net) if is_old else net
    theirs = text_format.Parse(prototxt(net), network_class()())
    assert theirs.SerializeToString() == network_class().FromString(binary(net)).SerializeToString()
    expected = said_of(parse_message(binary(net), NET))
    assert said_of(parse_message(theirs.SerializeToString(), NET)) == expected
    assert said_of(parse_prototxt(prototxt(net))) == expected
    for is_one_line in (False, True):
        text = text_format.MessageToString(theirs, as_one_line=is_one_line)
        assert said_of(parse_prototxt(text)) == expected
    brackets = text_format.MessageToString(theirs, pointy_brackets=True)
    assert said_of(parse_prototxt(brackets)) == expected


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("a: 1 a: -2 a: 0x1F a: 010", [1, -2, 31, 8]),
        ("a: 1e-4, a: .5; a: 2. a: 3f a: -inf", [1e-4, 0.5, 2, 3, float("-inf")]),
        ("a: [1, 2,3] a: []", [1, 2, 3]),
        (r"""a: "x\n\"\x41\101'" 'y' """, ["x\n\"AA'y"]),
        ("# a: 1\na # b\n : MAX # c", ["MAX"]),
        ("a: true", ["true"]),
        ("", []),
    ],
)
def test_values_are_read_as_the_text_format_writes_them(text: str, values: list[Any]) -> None:
    message = parse_prototxt(text)
    kind = message.texts if values and isinstance(values[0], str) else message.numbers
    assert kind("a") == values


@pytest.mark.parametrize("text", ["a { b { c: 1 } }", "a < b: { c: 1 } >", "a: {b<c:1>}"])
def test_messages_are_nested_with_either_kind_of_brackets(text: str) -> None:
    assert parse_prototxt(text).message("a").message("b").wholes("c") == [1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb {", "line 2: 'the end', expected the name of a field"),
        ("a: 1\n}", "line 2: '}', expected the name of a field"),
        ("a < }", "line 1: '}', expected the name"),
        ("a 1", 'line 1: \'1\', expected ":" or "{"'),
        ("a:", "line 1: 'the end', expected a value"),
        ("a: [1 2]", 'line 1: \'2\', expected "," or "]"'),
        ("a: 'x\n'", "line 1 is not in the text format"),
        ("\n\n\x00", "line 1 is not in the text format|line 3 is not"),
        ("a {" * 40, "nested more than 32 levels deep"),
        (" " * 2**23, "characters, expected at most"),
        ("#" * 10**6 + "\n" + " " * 10**6 + "$", "not in the text format"),
        ("a: " + "1" * 10**6 + "x", "not in the text format"),
    ],
)
def test_what_is_not_in_the_text_format_is_refused(text: str, message: str) -> None:
    with pytest.raises(MessageError, match=message):
        parse_prototxt(text)


def test_a_message_is_nested_only_as_far_as_its_schema() -> None:
    """Fields that the schema lacks are passed over, whatever is in them."""
    bomb = b""
    for _ in range(1000):
        length = len(bomb)
        bomb = b"\x1a" + bytes([length & 127 | 128, length >> 7]) + bomb
    assert parse_message(bomb, {1: ("a", "text")}).texts("a") == []
