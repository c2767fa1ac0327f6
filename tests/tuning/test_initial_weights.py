"""ImageNet weights from S3 come to a node once, and are never silently absent."""

from pathlib import Path

import pytest
from memory_objects import MemoryObjects

from tuning.initial_weights import fetched, require_stored
from tuning.objects import Place, StorageAwayError
from tuning.space import Choices, Parameter, Settings
from tuning.spec import Budget, Data, SearchSpec
from usererror import NotHereError, UserError

FOLDER = "s3://bucket/imagenet"


@pytest.fixture
def objects() -> MemoryObjects:
    found = MemoryObjects()
    found.contents = {
        "imagenet/resnet18-f37072fd.pth": b"eighteen",
        "imagenet/resnet34.safetensors": b"thirty-four",
        "imagenet/old/resnet50.pth": b"another folder's",
        "resnet50.pth": b"fifty",
    }
    return found


@pytest.mark.parametrize(
    ("uri", "backbone", "content"),
    [
        (FOLDER, "resnet18", b"eighteen"),
        (f"{FOLDER}/", "resnet34", b"thirty-four"),
        (f"{FOLDER}/resnet34.safetensors", "resnet34", b"thirty-four"),
        ("s3://bucket", "resnet50", b"fifty"),
        ("s3://bucket/resnet50.pth", "resnet50", b"fifty"),
    ],
)
def test_a_file_comes_from_its_place_or_a_folder_once(
    objects: MemoryObjects, tmp_path: Path, uri: str, backbone: str, content: bytes
) -> None:
    first = fetched(uri, backbone, tmp_path, objects)  # type: ignore[arg-type]
    assert first.read_bytes() == content
    assert first.suffix in {".pth", ".safetensors"}, "by which its format is known"
    objects.requests.clear()
    assert fetched(uri, backbone, tmp_path, objects) == first  # type: ignore[arg-type]
    assert objects.requests == ["list"]


def test_half_a_fetch_and_a_changed_file_are_fetched_anew(
    objects: MemoryObjects, tmp_path: Path
) -> None:
    first = fetched(FOLDER, "resnet18", tmp_path, objects)  # type: ignore[arg-type]
    first.write_bytes(b"eigh")
    assert fetched(FOLDER, "resnet18", tmp_path, objects).read_bytes() == b"eighteen"  # type: ignore[arg-type]
    objects.put(Place("bucket", "imagenet/resnet18-f37072fd.pth"), b"better ones")
    assert fetched(FOLDER, "resnet18", tmp_path, objects).read_bytes() == b"better ones"  # type: ignore[arg-type]


def test_what_was_fetched_last_serves_while_the_store_is_away(
    objects: MemoryObjects, tmp_path: Path
) -> None:
    fetched(FOLDER, "resnet18", tmp_path, objects)  # type: ignore[arg-type]
    objects.put(Place("bucket", "imagenet/resnet18-f37072fd.pth"), b"better ones")
    last = fetched(FOLDER, "resnet18", tmp_path, objects)  # type: ignore[arg-type]
    objects.away = True
    assert fetched(FOLDER, "resnet18", tmp_path, objects) == last  # type: ignore[arg-type]
    with pytest.raises(StorageAwayError):
        fetched(FOLDER, "resnet34", tmp_path, objects)  # type: ignore[arg-type]
    last.unlink()
    with pytest.raises(StorageAwayError):
        fetched(FOLDER, "resnet18", tmp_path, objects)  # type: ignore[arg-type]


def test_what_is_not_there_is_no_fault_of_the_configuration(
    objects: MemoryObjects, tmp_path: Path
) -> None:
    for uri in (FOLDER, f"{FOLDER}/resnet50.pth", "s3://bucket/absent"):
        with pytest.raises(NotHereError):
            fetched(uri, "resnet50", tmp_path, objects)  # type: ignore[arg-type]
    objects.contents["imagenet/resnet18.pth"] = b"a second one"
    with pytest.raises(UserError, match="not exactly one file") as error:
        fetched(FOLDER, "resnet18", tmp_path, objects)  # type: ignore[arg-type]
    assert type(error.value) is UserError
    assert list(tmp_path.iterdir()) == []


def search(fixed: Settings, backbones: tuple[str, ...], **when: tuple[str, ...]) -> SearchSpec:
    parameters: dict[str, Parameter] = {"backbone": Choices(choices=backbones)}
    if when:
        parameters["imagenet"] = Choices(choices=(FOLDER, None), when=when)
    return SearchSpec(
        name="w",
        data=Data(train="/data"),
        parameters=parameters,
        fixed=fixed,
        budget=Budget(trials=2, epochs=1),
    )


def test_a_search_needs_the_weights_of_all_its_backbones_before_it_begins(
    objects: MemoryObjects,
) -> None:
    require_stored(search({"imagenet": FOLDER}, ("resnet18", "resnet34")), objects)  # type: ignore[arg-type]
    assert objects.requests == ["list"]
    with pytest.raises(NotHereError, match=f"{FOLDER}: not exactly one file .* for resnet50"):
        require_stored(search({"imagenet": FOLDER}, ("resnet18", "resnet50")), objects)  # type: ignore[arg-type]
    objects.contents["imagenet/resnet18.pth"] = b"a second one"
    with pytest.raises(UserError, match="for resnet18; got 'resnet18-f37072fd"):
        require_stored(search({"imagenet": FOLDER}, ("resnet18",)), objects)  # type: ignore[arg-type]


def test_what_only_nodes_know_or_only_some_trials_need_is_left_to_them(
    objects: MemoryObjects,
) -> None:
    for place in ("/weights", "download", None):
        require_stored(search({"imagenet": place}, ("resnet50",)), objects)  # type: ignore[arg-type]
    some = search({}, ("resnet18", "resnet50"), backbone=("resnet18",))
    require_stored(some, objects)  # type: ignore[arg-type]
    assert objects.requests == []
