from pathlib import Path

import pytest

from trackbed.apps.settings import Settings, SettingsError, calm, load_settings


def write(folder: Path, text: str) -> Path:
    file = folder / "trackbed.toml"
    file.write_text(text)
    return file


def test_without_a_file_the_defaults_hold() -> None:
    assert load_settings(environment={}) == Settings()


def test_a_file_composes_what_other_files_configure(tmp_path: Path) -> None:
    file = write(tmp_path, 'embedder = "other"\n[engine]\nthreads = 3\n')
    settings = load_settings(file, {})
    assert (settings.embedder, settings.engine.threads) == ("other", 3)


def test_paths_of_a_file_are_relative_to_it(tmp_path: Path) -> None:
    settings = load_settings(write(tmp_path, 'cache = "c"\ndata = "d"\npolicy = "p.yaml"'), {})
    assert (settings.models, settings.indexes) == (tmp_path / "c/models", tmp_path / "d/indexes")
    assert settings.policy == str(tmp_path / "p.yaml")


def test_a_shipped_policy_is_no_path(tmp_path: Path) -> None:
    assert load_settings(write(tmp_path, 'policy = "strict"'), {}).policy == "strict"


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    file = write(tmp_path, 'cache = "c"\n[engine]\nthreads = 3\nmax_seqs = 2\n')
    settings = load_settings(file, {"TRACKBED_CACHE": "/e", "TRACKBED_ENGINE_THREADS": "4", "HOME": "/root"})
    assert (settings.cache, settings.engine.threads, settings.engine.max_seqs) == (Path("/e"), 4, 2)


def test_the_choice_of_kernels_is_no_unknown_setting() -> None:
    assert load_settings(environment={"TRACKBED_ISA": "generic"}) == load_settings(environment={})


def test_the_environment_can_name_the_file(tmp_path: Path) -> None:
    file = write(tmp_path, 'embedder = "other"')
    assert load_settings(environment={"TRACKBED_CONFIG": str(file)}).embedder == "other"


def test_the_password_of_a_database_is_not_shown() -> None:
    settings = load_settings(environment={"TRACKBED_POSTGRES": "postgresql://me:s3cret@host/db"})
    assert settings.postgres
    assert settings.postgres.get_secret_value().endswith("s3cret@host/db")
    assert "s3cret" not in f"{settings!r} {settings} {settings.model_dump_json()}"


@pytest.mark.parametrize(
    ("text", "environment", "said"),
    [
        ("cach = 'x'", {}, r"trackbed.toml: 'cach' is not a setting; did you mean 'cache'\?"),
        ("[engine]\nthread = 1", {}, r"trackbed.toml: 'engine.thread' is not a setting; did you mean 'threads'\?"),
        ("[engine]\nthreads = 0", {}, r"trackbed.toml: 'engine.threads': input should be greater than or equal to 1"),
        ("engine = 4", {}, r"trackbed.toml: 'engine': input should be"),
        ("cache = ", {}, r"trackbed.toml: Invalid value"),
        ("", {"TRACKBED_CAHCE": "x"}, r"TRACKBED_CAHCE in the environment is not a setting; .*'TRACKBED_CACHE'"),
        ("", {"TRACKBED_ENGINE_THREADS": "many"}, r"TRACKBED_ENGINE_THREADS in the environment: input should be"),
        ("", {"TRACKBED_ENGINE_THREAD": "1"}, r"TRACKBED_ENGINE_THREAD in the environment is not a setting"),
        ("engine = 4", {"TRACKBED_ENGINE_THREADS": "1"}, r"'engine': input should be"),
    ],
)
def test_a_mistake_is_told_where_it_stands(tmp_path: Path, text: str, environment: dict[str, str], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        load_settings(write(tmp_path, text), environment)


def test_a_file_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"nothing\.toml cannot be read: No such file"):
        load_settings(tmp_path / "nothing.toml", {})


def test_libraries_are_told_to_stay_offline_unless_the_user_has_said_otherwise() -> None:
    environment = {"HF_HUB_OFFLINE": "0"}
    calm(environment, offline=True)
    assert environment["HF_HUB_OFFLINE"] == "0"
    assert environment["TOKENIZERS_PARALLELISM"] == "false"
