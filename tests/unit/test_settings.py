"""Settings: which source wins, what a wrong value says, what the seeds' names mean."""

from pathlib import Path

import pytest

from caiafs.core.config import BackendName, Config, config_from_json, config_to_json
from caiafs.core.errors import ConfigError
from caiafs.core.settings import MASKED, Given, Settings, describe, load
from caiafs.core.settings_table import SETTINGS

MNT = Path("/mnt/caia")


def loaded(
    *options: tuple[str, str],
    environ: dict[str, str] | None = None,
    toml: str | None = None,
    cwd: Path = Path("/work"),
) -> Settings:
    """Load with `options` as given after -o, and `toml` as the file in `cwd`."""
    config_file = None
    if toml is not None:
        config_file = cwd / "caiafs.toml"
        config_file.write_text(toml)
        config_file.chmod(0o600)
    given = [Given(name, text, f"-o {name}", cwd, private=False) for name, text in options]
    return load(MNT, given, environ or {}, cwd=cwd, config_file=config_file)


def test_without_any_source_the_defaults_hold():
    settings = loaded()

    assert settings.config.repository == Path("/work/data/repo")
    assert settings.config.poll_interval_s == Config(MNT, MNT).poll_interval_s
    assert settings.config.use_govc is False
    assert set(settings.origins.values()) == {"default", "no govc is configured"}


def test_command_line_beats_environment_beats_file_beats_default(tmp_path: Path):
    toml = 'poll_interval = "7s"\nsync_interval = "7m"\nunmount_grace = "7s"\n'
    environ = {"CAIAFS_POLL_INTERVAL": "8s", "CAIAFS_SYNC_INTERVAL": "8m"}

    settings = loaded(("poll_interval", "9s"), environ=environ, toml=toml, cwd=tmp_path)

    assert settings.config.poll_interval_s == 9.0
    assert settings.config.sync_interval_s == 480.0
    assert settings.config.unmount_grace_s == 7.0
    assert settings.origins["poll_interval"] == "-o poll_interval"
    assert settings.origins["sync_interval"] == "CAIAFS_SYNC_INTERVAL in the environment"
    assert settings.origins["unmount_grace"] == str(tmp_path / "caiafs.toml")
    assert settings.origins["health_interval"] == "default"


def test_the_environment_can_name_the_file(tmp_path: Path):
    (tmp_path / "c.toml").write_text("cache_entries = 12\n")

    settings = loaded(environ={"CAIAFS_CONFIG": "c.toml"}, cwd=tmp_path)

    assert settings.config.cache_entries == 12


def test_an_empty_variable_counts_as_unset():
    assert loaded(environ={"GOVC_SERVICE_URL": "", "CAIA_USE_GOVC": ""}).config.use_govc is False


@pytest.mark.parametrize(
    ("variable", "text", "field", "value"),
    [
        ("GOVC_SERVICE_URL", "http://govc:9000/", "govc_url", "http://govc:9000"),
        ("GOVC_AUTH_TOKEN", "abc.def\n", "govc_auth_token", "abc.def"),
        ("GOVC_REPO_NAME", "papers", "govc_repo_name", "papers"),
        ("GOVC_TIMEOUT", "1m30s", "govc_timeout_s", 90.0),
        ("CAIA_USE_GOVC", "TRUE", "use_govc", True),
        ("CAIA_REPO_PATH", "docs", "repository", Path("/work/docs")),
        ("CAIAFS_CACHE_BYTES", "1GiB", "cache_bytes", 1 << 30),
        ("CAIAFS_UMASK", "027", "umask", 0o27),
        ("CAIAFS_ENTRY_TIMEOUT", "1.5", "entry_timeout_s", 1.5),
    ],
)
def test_variables_that_users_know_are_read(variable: str, text: str, field: str, value: object):
    assert getattr(loaded(environ={variable: text}).config, field) == value


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("poll_interval", "soon"),
        ("poll_interval", "30"),
        ("cache_bytes", "lots"),
        ("cache_entries", "0"),
        ("retry_max", "-1"),
        ("enable_sync", "maybe"),
        ("primary_backend", "svn"),
        ("commit", "sometimes"),
        ("umask", "9"),
        ("umask", "1777"),
        ("uid", "no such user"),
        ("govc_url", "localhost:8080"),
        ("govc_url", "http://"),
        ("govc_url", "http://user:pw@host"),
        ("govc_url", "http://host:port"),
        ("govc_url", "http://a b"),
        ("govc_repo_name", "../etc"),
        ("branch", "a..b"),
        ("branch", "-x"),
        ("caia_dir", "a/b"),
        ("log_level", "LOUD"),
        ("entry_timeout", "nan"),
    ],
)
def test_a_wrong_value_names_itself_its_origin_and_what_is_allowed(name: str, text: str):
    with pytest.raises(ConfigError) as caught:
        loaded((name, text))

    message = str(caught.value)
    assert name in message
    assert repr(text) in message
    assert f"-o {name}" in message
    assert SETTINGS[name].kind.allowed in message
    assert caught.value.exit_code == 2


def test_a_default_shown_reads_back_as_itself():
    config = Config(MNT, MNT)

    for setting in SETTINGS.values():
        value = getattr(config, setting.field)
        if value is not None and setting.name != "repository":
            assert setting.kind.parse(setting.kind.show(value)) == value or setting.secret


class TestGovc:
    def test_nothing_configured_means_git_alone_and_nobody_is_warned(self):
        settings = loaded()

        assert settings.config.use_govc is False
        assert settings.config.primary_backend is BackendName.GIT
        assert settings.warnings == ()

    def test_a_url_turns_it_on(self):
        config = loaded(environ={"GOVC_SERVICE_URL": "http://govc"}).config

        assert config.use_govc is True
        assert config.primary_backend is BackendName.GOVC

    def test_use_govc_turns_it_on_at_the_default_address(self):
        config = loaded(environ={"CAIA_USE_GOVC": "true"}).config

        assert config.use_govc is True
        assert config.govc_url == "http://localhost:8080"

    def test_use_govc_false_beats_a_url_and_a_primary(self):
        environ = {
            "CAIA_USE_GOVC": "false",
            "GOVC_SERVICE_URL": "http://govc",
            "PRIMARY_BACKEND": "govc",
        }

        config = loaded(environ=environ).config

        assert config.use_govc is False
        assert config.primary_backend is BackendName.GIT

    def test_primary_backend_wins_over_use_govc(self):
        config = loaded(environ={"CAIA_USE_GOVC": "true", "PRIMARY_BACKEND": "git"}).config

        assert config.use_govc is True
        assert config.primary_backend is BackendName.GIT

    def test_a_primary_that_nobody_configured_is_not_contacted_and_said(self):
        settings = loaded(environ={"PRIMARY_BACKEND": "govc"})

        assert settings.config.use_govc is False
        assert "has no effect" in settings.warnings[0]


class TestSecrets:
    def test_a_token_on_the_command_line_is_refused_and_not_repeated(self):
        with pytest.raises(ConfigError) as caught:
            loaded(("govc_auth_token", "s3cr3t"))

        assert "GOVC_AUTH_TOKEN" in str(caught.value)
        assert "s3cr3t" not in str(caught.value)

    def test_a_wrong_token_is_not_shown(self):
        with pytest.raises(ConfigError) as caught:
            loaded(environ={"GOVC_AUTH_TOKEN": "two words"})

        assert "two words" not in str(caught.value)

    def test_a_token_file_is_read(self, tmp_path: Path):
        (tmp_path / "token").write_text("s3cr3t\n")

        settings = loaded(("govc_auth_token_file", "token"), cwd=tmp_path)

        assert settings.config.govc_auth_token == "s3cr3t"
        assert settings.origins["govc_auth_token"] == str(tmp_path / "token")

    def test_a_readable_file_with_a_token_is_warned_of(self, tmp_path: Path):
        path = tmp_path / "open.toml"
        path.write_text('govc_auth_token = "s3cr3t"\n')
        path.chmod(0o644)

        settings = load(MNT, [], {}, cwd=tmp_path, config_file=path)

        assert "chmod 600" in settings.warnings[0]

    def test_masked_in_description_and_in_repr(self):
        settings = loaded(environ={"GOVC_AUTH_TOKEN": "s3cr3t", "GOVC_SERVICE_URL": "http://h"})

        described = describe(settings.config, settings.origins)

        assert described["govc_auth_token"]["value"] == MASKED
        assert described["govc_auth_token"]["origin"] == "GOVC_AUTH_TOKEN in the environment"
        assert "s3cr3t" not in repr(settings.config)
        assert "s3cr3t" not in str(described)


class TestToml:
    def test_native_types_are_taken(self, tmp_path: Path):
        toml = 'enable_sync = false\nretry_max = 3\nlocal_patterns = ["*.tmp", "a:b"]\n'

        config = loaded(toml=toml, cwd=tmp_path).config

        assert config.enable_sync is False
        assert config.retry_max == 3
        assert config.local_patterns == ("*.tmp", "a:b")

    def test_relative_paths_start_from_the_file(self, tmp_path: Path):
        path = tmp_path / "etc" / "c.toml"
        path.parent.mkdir()
        path.write_text('state_dir = "state"\n')

        config = load(MNT, [], {}, cwd=Path("/"), config_file=path).config

        assert config.state_dir == tmp_path / "etc" / "state"

    @pytest.mark.parametrize(
        ("toml", "says"),
        [
            ("govc_ulr = 'x'", "did you mean govc_url?"),
            ("poll_interval = [1]", "wrong type"),
            ("poll_interval = ", "is not TOML"),
            ("[govc]\nurl = 'x'", "unknown setting 'govc'"),
        ],
    )
    def test_a_wrong_file_says_what(self, tmp_path: Path, toml: str, says: str):
        with pytest.raises(ConfigError, match=says.replace("?", r"\?")):
            loaded(toml=toml, cwd=tmp_path)

    def test_a_missing_file_is_an_error(self, tmp_path: Path):
        with pytest.raises(ConfigError, match="cannot read configuration file"):
            load(MNT, [], {}, cwd=tmp_path, config_file=Path("none.toml"))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([("allow_other", "true"), ("allow_root", "true")], "exclude each other"),
        ([("poll_interval", "0")], "more than 0"),
        ([("govc_ca_file", "/nonexistent")], "is not a file"),
    ],
)
def test_values_that_make_no_sense_together_are_refused(options: list[tuple[str, str]], says: str):
    with pytest.raises(ConfigError, match=says):
        loaded(*options)


def test_config_survives_the_way_to_the_store_process():
    config = loaded(
        ("state_dir", "/var/lib/caiafs"),
        ("local_patterns", "*.tmp:x"),
        environ={"GOVC_AUTH_TOKEN": "s3cr3t", "GOVC_SERVICE_URL": "http://h"},
    ).config

    assert config_from_json(config_to_json(config)) == config


def test_every_setting_is_a_field_of_config_and_has_its_own_variable():
    fields = set(Config.__dataclass_fields__)

    assert {setting.field for setting in SETTINGS.values()} | {"mountpoint"} == fields
    assert len({setting.env for setting in SETTINGS.values()}) == len(SETTINGS)
