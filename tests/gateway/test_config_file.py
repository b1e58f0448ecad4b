"""The configuration file: every error at once, each with its place, and never a secret."""

from __future__ import annotations

import logging
import os
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tracer_async.gateway.config import GatewayConfig, WebConfig
from tracer_async.gateway.config_file import ConfigError, load_config

ROOF = '[controllers.roof]\nurl = "sim:"\n'

Load = Callable[..., GatewayConfig]
Errors = Callable[..., list[str]]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def load(text: str, **environment: str) -> GatewayConfig:
        path = tmp_path / "gateway.toml"
        path.write_text(text, encoding="utf-8")
        path.chmod(0o600)
        return load_config(path, environment=environment)

    return load


@pytest.fixture
def errors(load: Load, tmp_path: Path) -> Errors:
    """The errors of a file, without its name."""

    def errors(text: str, **environment: str) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            load(text, **environment)
        name = f"{tmp_path / 'gateway.toml'}: "
        assert str(caught.value).splitlines() == caught.value.errors
        assert all(error.startswith(name) for error in caught.value.errors)
        return [error.removeprefix(name) for error in caught.value.errors]

    return errors


def secret_file(path: Path, content: str = "hunter2-hunter2\n", mode: int = 0o600) -> Path:
    path.write_text(content, encoding="utf-8")
    path.chmod(mode)
    return path


# What is right


def test_the_smallest_file_has_all_defaults(load: Load, tmp_path: Path) -> None:
    config = load(ROOF)
    assert config.controllers["roof"].interval == 5.0
    assert config.state_directory == tmp_path
    assert (config.mqtt, config.web, config.influx, config.history) == (None, None, None, None)


def test_a_whole_number_is_a_number(load: Load) -> None:
    interval = load(f"{ROOF}interval = 5").controllers["roof"].interval
    assert isinstance(interval, float)
    assert interval == 5


def test_a_list_of_host_names_is_read(load: Load) -> None:
    web = load(f'{ROOF}[web]\nhosts = ["solar.local", "gateway"]').web
    assert web is not None
    assert web.hosts == ("solar.local", "gateway")


def test_paths_are_relative_to_the_file(load: Load, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").touch()
    config = load(f'state_directory = "state"\n{ROOF}[mqtt]\nurl = "mqtts://broker"\nca_file = "ca.pem"')
    assert config.state_directory == tmp_path / "state"
    assert config.mqtt is not None
    assert config.mqtt.ca_file == tmp_path / "ca.pem"


def test_the_path_of_the_file_may_be_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gateway.toml").write_text(ROOF)
    monkeypatch.chdir(tmp_path)
    assert load_config("gateway.toml", environment={}).state_directory == tmp_path


def test_systemd_gives_the_state_directory_unless_the_file_does(load: Load, tmp_path: Path) -> None:
    assert load(ROOF, STATE_DIRECTORY="/var/lib/a:/var/lib/b").state_directory == Path("/var/lib/a")
    assert load(f'state_directory = "x"\n{ROOF}', STATE_DIRECTORY="/var/lib/a").state_directory == tmp_path / "x"


def test_simulated_controllers_may_have_the_same_url(load: Load) -> None:
    assert len(load(f'{ROOF}[controllers.shed]\nurl = "sim:"').controllers) == 2


# Variables and secrets


def test_variables_are_replaced_in_every_string(load: Load) -> None:
    config = load(
        '[controllers.roof]\nurl = "${HOST}:${PORT}"\ntitle = "$${HOST} costs 5 $, ${HOST}"\n'
        '[web]\nhosts = ["${HOST}"]\ntoken = "${TOKEN}"',
        HOST="bridge",
        PORT="8088",
        TOKEN="0123456789",
    )
    assert config.controllers["roof"].url == "bridge:8088"
    assert config.controllers["roof"].title == "${HOST} costs 5 $, bridge"
    assert config.web is not None
    assert config.web.hosts == ("bridge",)
    assert config.web.token is not None
    assert config.web.token.get_secret_value() == "0123456789"


def test_what_a_variable_contains_is_not_replaced_again(load: Load) -> None:
    assert load(f'{ROOF}title = "${{A}}"', A="${B}", B="x").controllers["roof"].title == "${B}"


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ('[mqtt]\nurl = "mqtt://broker"\nusername = "solar"', "password"),
        ('[influx]\nurl = "http://influx"\nusername = "solar"', "password"),
        ('[influx]\nurl = "http://influx"', "token"),
        ("[history]", "password"),
        ("[web]", "token"),
        ("[web]", "switch_token"),
    ],
)
@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_secret_is_read_from_its_file(load: Load, tmp_path: Path, section: str, key: str, end: str) -> None:
    (tmp_path / "secret").write_bytes(f" hunter2 hunter2{end}".encode())
    (tmp_path / "secret").chmod(0o600)
    config = load(f'{ROOF}{section}\n{key}_file = "secret"')
    secret = getattr(getattr(config, section[1:].partition("]")[0]), key)
    assert secret.get_secret_value() == " hunter2 hunter2"
    assert "hunter2" not in repr(config) + str(config)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "the file: cannot be read: No such file or directory"),
        (b"", "the file is empty"),
        (b" \n", "the file is empty"),
        (b"a\nb\n", "the file must contain one line, and no control character"),
        (b"a\0b", "the file must contain one line, and no control character"),
        (b"\xff\xfe", "the file cannot be read: it is not UTF-8"),
        (b"a" * 100_000, "the file must contain one line, and no control character"),
        (b"short", "the text in the file is too short: it needs at least 8 characters"),
    ],
)
def test_a_file_without_a_usable_secret_is_an_error(
    errors: Errors, tmp_path: Path, content: bytes | None, reason: str
) -> None:
    if content is not None:
        (tmp_path / "token").write_bytes(content)
    (error,) = errors(f'{ROOF}[web]\ntoken_file = "token"')
    assert error.startswith("web.token_file: ")
    assert all(part in error for part in reason.split(": ", 1))


def test_a_directory_holds_no_secret(errors: Errors, tmp_path: Path) -> None:
    assert errors(f'{ROOF}[web]\ntoken_file = "."') == ['web.token_file: the file "." cannot be read: Is a directory']


@pytest.mark.skipif(os.geteuid() == 0, reason="root can read every file")
def test_a_secret_that_may_not_be_read_is_an_error(errors: Errors, tmp_path: Path) -> None:
    secret_file(tmp_path / "token", mode=0)
    (error,) = errors(f'{ROOF}[web]\ntoken_file = "token"')
    assert "Permission denied" in error


def test_a_secret_that_everybody_can_read_is_a_warning(
    load: Load, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    secret_file(tmp_path / "token", mode=0o644)
    load(f'{ROOF}[web]\ntoken_file = "token"')
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith(f"web.token_file: {tmp_path / 'token'} ")
    caplog.clear()
    (tmp_path / "token").chmod(0o640)
    load(f'{ROOF}[web]\ntoken_file = "token"')
    assert not caplog.records


def test_a_configuration_with_a_secret_that_everybody_can_read_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "gateway.toml"
    for text, warnings in ((f'{ROOF}[web]\ntoken = "0123456789"', 1), (f'{ROOF}[web]\ntoken = "${{TOKEN}}"', 0)):
        caplog.clear()
        path.write_text(text)
        path.chmod(0o644)
        load_config(path, environment={"TOKEN": "0123456789"})
        assert len(caplog.records) == warnings


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("${NONE}", "the environment variable NONE is not set"),
        ("${", "write ${NAME} for an environment variable, or $${ for the characters ${"),
        ("${A B}", "write ${NAME} for an environment variable, or $${ for the characters ${"),
        ("${}", "write ${NAME} for an environment variable, or $${ for the characters ${"),
    ],
)
def test_a_variable_that_cannot_be_replaced_is_one_error(errors: Errors, value: str, reason: str) -> None:
    assert errors(f'[controllers.roof]\nurl = "{value}"') == [f"controllers.roof.url: {reason}"]
    assert errors(f'{ROOF}[web]\ntoken = "{value}"') == [f"web.token: {reason}"]


# What is wrong


@pytest.mark.parametrize(
    ("text", "error"),
    [
        # Unknown keys and tables
        (f"{ROOF}intervall = 5", "controllers.roof.intervall: unknown key; did you mean interval?"),
        (f"{ROOF}[mqqt]\nurl = 'mqtt://h'", "mqqt: unknown key; did you mean mqtt?"),
        (f"{ROOF}[web]\nlistenn = '[::1]:80'", "web.listenn: unknown key; did you mean listen?"),
        (
            f"{ROOF}[log]\nxyzzy = 1",
            "log.xyzzy: unknown key; expected one of format, level",
        ),
        (f'{ROOF}"a\\nb" = 1', 'controllers.roof."a\\nb": unknown key; expected one of '),
        # Wrong types
        (f"{ROOF}interval = '5'", 'controllers.roof.interval: found "5"; expected a number from 0.2 to 3,600'),
        (f"{ROOF}interval = true", "controllers.roof.interval: found true; expected a number from 0.2 to 3,600"),
        (f"{ROOF}retries = true", "controllers.roof.retries: found true; expected a whole number from 0 to 20"),
        (f"{ROOF}retries = 2.5", "controllers.roof.retries: found 2.5; expected a whole number from 0 to 20"),
        (f"{ROOF}interval = [5]", "controllers.roof.interval: found a list; expected a number from 0.2 to 3,600"),
        (f"{ROOF}interval = 2026-01-01", "controllers.roof.interval: found 2026-01-01; expected a number"),
        (f"{ROOF}url.x = 1", "occurs twice"),
        (f"{ROOF}[web]\nhosts = 'a'", 'web.hosts: found "a"; write a list: ["a"]'),
        (f"{ROOF}[web]\nhosts = ['a', 3]", "web.hosts[1]: found 3; expected a string"),
        (f"web = 3\n{ROOF}", "web: found a whole number; expected a table"),
        ("controllers = 3", "controllers: found a whole number; expected a table for each controller"),
        ("[controllers]\nroof = 'sim:'", "controllers.roof: found a string; expected a table"),
        # Out of range
        (f"{ROOF}interval = 0.1", "controllers.roof.interval: found 0.1; expected a number from 0.2 to 3,600"),
        (f"{ROOF}interval = nan", "controllers.roof.interval: found nan; expected a number from 0.2 to 3,600"),
        (f"{ROOF}interval = inf", "controllers.roof.interval: found inf; expected a number from 0.2 to 3,600"),
        (
            f"{ROOF}interval = 0x{'f' * 5000}",
            "found a whole number that is far too large; expected a number from 0.2 to",
        ),
        (f"{ROOF}interval = {'9' * 5000}", "is not TOML: a value is not valid"),
        (
            f"{ROOF}controller_id = 256",
            "controllers.roof.controller_id: found 256; expected a whole number from 0 to 255",
        ),
        (f"{ROOF}title = ''", 'controllers.roof.title: found ""; expected a string of 1 to 100 characters'),
        (f"{ROOF}[web]\ntoken = 'short'", "web.token: too short: it needs at least 8 characters"),
        (f"{ROOF}[log]\nlevel = 'loud'", 'log.level: found "loud"; expected "debug" or "info" or "warning" or "error"'),
        # What is missing
        ("", "controllers: the key is missing; expected a table for each controller, such as [controllers.roof]"),
        ("[controllers]", "controllers: found a table; expected a table for each controller"),
        ("[controllers.roof]", "controllers.roof: url is missing: the address of the controller; or write listen"),
        (f"{ROOF}[mqtt]", "mqtt.url: the key is missing; expected a string"),
        # Names, URLs and places
        ('[controllers.Roof]\nurl="sim:"', "controllers.Roof: a name consists of 1 to 64 characters a-z, 0-9, _ and -"),
        ('[controllers."a b"]\nurl="sim:"', 'controllers."a b": a name consists of 1 to 64 characters'),
        ('[controllers.a]\nurl="192.168.1.20"', 'controllers.a.url: found "192.168.1.20"; the port is missing; write'),
        ('[controllers.a]\nurl="sim:?x=1"', "the options are seed, time_scale, start_hour"),
        (f"{ROOF}[mqtt]\nurl='http://h'", 'mqtt.url: found "http://h"; the URL must begin with mqtt:// or mqtts://'),
        (f"{ROOF}[mqtt]\nurl='mqtt://h:99999'", "write mqtt://HOST:PORT, with a port from 1 to 65535"),
        (f"{ROOF}[mqtt]\nurl='mqtt://u:p@h'", 'mqtt.url: found "mqtt://…"; the URL must not contain a user name or'),
        (f"{ROOF}[mqtt]\nurl='mqtt://h'\nprefix='a/#'", 'mqtt.prefix: found "a/#"; a topic prefix has no +, # or'),
        (f"{ROOF}[influx]\nurl='http://'", 'influx.url: found "http://"; write http://HOST:PORT'),
        (f"{ROOF}[influx]\nurl='http://h?token=x'", 'influx.url: found "http://h?…"; the URL must not contain ? or #'),
        (f"{ROOF}[history]\nurl='mysql://h/d'", "write sqlite:///FILE or postgresql://USER@HOST:PORT/DATABASE"),
        (f"{ROOF}[history]\nurl='postgresql://u:p@h/d'", "the URL must not contain a password; use password_file"),
        (f"{ROOF}[history]\nurl='postgresql://h/d?password=p'", "the URL must not contain a password"),
        (f"{ROOF}[history]\nurl='postgresql://[h/d'", "write sqlite:///FILE or postgresql://"),
        (f"{ROOF}[web]\nlisten='8090'", 'web.listen: found "8090"; write HOST:PORT'),
        (f"{ROOF}[web]\nlisten='::1:8090'", "an IPv6 address must be in brackets, such as [::1]:8090"),
        (f"{ROOF}[web]\nlisten='h:{'9' * 5000}'", "the port must be from 0 to 65535"),
        (f"{ROOF}[web]\nlisten='h:80800'", 'web.listen: found "h:80800"; the port must be from 0 to 65535'),
        (f"{ROOF}[web]\nlisten='h:http'", "write HOST:PORT"),
        (f"{ROOF}[history]\nraw_days = 0", "history.raw_days: found 0; expected a whole number from 1 to 3,650"),
        (f"{ROOF}[mqtt]\nurl='mqtt://h'\nusername='u'\npassword=''", "mqtt.password: it is empty"),
        (f"time_zone = 'Mars/Olympus'\n{ROOF}", 'time_zone: found "Mars/Olympus"; not a time zone of the IANA'),
        (f"time_zone = 'Europe'\n{ROOF}", 'time_zone: found "Europe"; not a time zone'),
        (f"time_zone = ''\n{ROOF}", 'time_zone: found ""; not a time zone'),
        (f"state_directory = ''\n{ROOF}", 'state_directory: found ""; the path is empty'),
        (f"{ROOF}[mqtt]\nurl='mqtts://h'\nca_file='no.pem'", 'mqtt.ca_file: the file "no.pem" cannot be read: No such'),
        # What belongs together
        (f"{ROOF}[web]\nlisten='0.0.0.0:80'", "web: other machines can reach the address in listen: set token or"),
        (f"{ROOF}[web]\nauth='token'", 'web: auth = "token" needs token or token_file'),
        (f"{ROOF}[web]\nauth='none'\ntoken='12345678'", 'web: auth = "none" and a token contradict each other'),
        (f"{ROOF}[web]\ntoken='12345678'\nswitch_token='12345678'", "web: token and switch_token are the same"),
        (f"{ROOF}[mqtt]\nurl='mqtt://h'\npassword='p'", "mqtt: a password needs a user name: set username"),
        (f"{ROOF}[influx]\nurl='http://h'\npassword='p'", "influx: a password needs a user name: set username"),
        (f"{ROOF}[influx]\nurl='http://h'\nusername='u'\ntoken='t'", "influx: give username or a token, not both"),
    ],
)
def test_an_error_names_the_key_and_what_was_found_and_expected(errors: Errors, text: str, error: str) -> None:
    (only,) = errors(text)
    assert error in only


@pytest.mark.parametrize(
    ("text", "place", "reason"),
    [
        (f"{ROOF}[controllers.roof]\n", "line 3, column 1: ", "the table [controllers.roof] occurs twice"),
        (f"{ROOF}\r\n  [ controllers.roof ]\r\n", "line 4, column 3: ", "the table [controllers.roof] occurs twice"),
        (f"{ROOF}[controllers.roof", "end of document: ", "the table [controllers.roof] occurs twice"),
        (f"{ROOF}interval = 1\ninterval = 2\n", "line 4, column", "the key interval occurs twice"),
        ("web = {listen = 'a', listen = 'b'}", "line 1, column", "the key listen occurs twice"),
        ("[controllers.roof\nurl = 3", "line 1, column", "is not TOML"),
        ("[web]\nlisten = 'a", "", "is not TOML"),
        ("[web]\nlisten = hello", "line 2, column 10", 'invalid value. Is a text without quotes? Write "..."'),
        ("[web]\nlisten = 127.0.0.1:80", "line 2, column 15", 'a statement. Is a text without quotes? Write "..."'),
    ],
)
def test_an_error_of_the_syntax_has_its_place(errors: Errors, text: str, place: str, reason: str) -> None:
    (error,) = errors(text)
    assert error.startswith(place)
    assert reason in error


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    for path, reason in (
        (tmp_path / "none.toml", "cannot be read: No such file or directory"),
        (tmp_path, "cannot be read: Is a directory"),
        (Path("a\0b"), "cannot be read: the name is not valid"),
    ):
        with pytest.raises(ConfigError) as caught:
            load_config(path)
        assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"# \n\xff", "line 2: is not UTF-8"),
        (b"#" * 2_000_000, "is larger than 1 MiB"),
        (b"a = " + b"[" * 100_000, "contains too many brackets within each other"),
    ],
)
def test_a_file_that_is_no_text_is_an_error(tmp_path: Path, data: bytes, reason: str) -> None:
    path = tmp_path / "gateway.toml"
    path.write_bytes(data)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert reason in str(caught.value)


def test_all_errors_of_a_file_come_at_once(errors: Errors) -> None:
    found = errors("""
        [controllers.Roof]
        url = "192.168.1.20"
        intervall = 0
        [controllers.shed]
        url = "tcp://bridge:1"
        [controllers.barn]
        url = "BRIDGE:1"
        id = "shed"
        [mqt]
        url = "http://broker"
        [web]
        listen = "0.0.0.0:80"
        [log]
        level = "${LEVEL}"
        """)
    for start in (
        "controllers.Roof: a name",
        "controllers.Roof.url: found",
        "controllers.Roof.intervall: unknown key",
        "controllers.Roof.interval: found 0",
        "controllers.barn: it has the same url as controllers.shed",
        "controllers.barn: it has the same id as controllers.shed",
        "mqt: unknown key",
        "mqtt.url: found",
        "web: other machines",
        "log.level: the environment variable LEVEL is not set",
    ):
        assert len([error for error in found if error.startswith(start)]) == 1, start
    assert len(found) == 10


def test_two_names_of_one_serial_port_are_one_line(errors: Errors, tmp_path: Path) -> None:
    (tmp_path / "port").touch()
    (tmp_path / "by-id").symlink_to(tmp_path / "port")
    (error,) = errors(
        f'[controllers.a]\nurl = "{tmp_path / "port"}"\n[controllers.b]\nurl = "serial://{tmp_path / "by-id"}"'
    )
    assert error.startswith("controllers.b: it has the same url as controllers.a; a line can have only one controller")


def test_an_id_may_not_be_the_name_of_another_controller(errors: Errors) -> None:
    assert errors(f'{ROOF}[controllers.shed]\nurl = "sim:"\nid = "roof"') == [
        "controllers.shed: it has the same id as controllers.roof"
    ]


def test_a_misspelt_key_gives_one_error_only(errors: Errors) -> None:
    assert errors('[controllers.roof]\nurll = "sim:"') == ["controllers.roof.urll: unknown key; did you mean url?"]


@pytest.mark.parametrize(
    ("key", "misspelt", "others"),
    [
        ('url = "bridge:1"', 'urll = "bridge:1"', ""),
        ('listen = "bridge:1"', 'lissten = "bridge:1"', ""),
        ('id = "x"\nurl = "bridge:2"', 'idd = "x"', 'url = "bridge:1"'),
    ],
)
def test_a_misspelt_key_is_not_compared_with_another_controller(
    errors: Errors, key: str, misspelt: str, others: str
) -> None:
    name = misspelt.partition(" ")[0]
    for first, second in (("roof", "shed"), ("shed", "roof")):
        tables = {"roof": f"{misspelt}\n{others}", "shed": key}
        (error,) = errors("".join(f"[controllers.{table}]\n{tables[table]}\n" for table in (first, second)))
        assert error.startswith(f"controllers.roof.{name}: unknown key; did you mean ")


@pytest.mark.parametrize("files", [(), ("token",), ("switch_token",), ("token", "switch_token")])
def test_the_token_that_switches_is_another_one_wherever_both_are_written(
    errors: Errors, tmp_path: Path, files: tuple[str, ...]
) -> None:
    lines = []
    for key in ("token", "switch_token"):
        secret_file(tmp_path / key)
        lines.append(f'{key}_file = "{key}"' if key in files else f'{key} = "${{TOKEN}}"')
    (error,) = errors("\n".join([f"{ROOF}[web]", *lines]), TOKEN="hunter2-hunter2")
    assert error.startswith("web: token and switch_token are the same")
    assert "hunter2" not in error


def test_a_state_directory_far_from_any_that_exists_is_a_warning(
    load: Load, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for directory, warnings in ((".", 0), ("new", 0), ("mistyped/new", 1)):
        caplog.clear()
        load(f'state_directory = "{directory}"\n{ROOF}')
        found = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
        assert len(found) == warnings
        assert all(text.startswith(f"state_directory: {tmp_path / directory} does not exist") for text in found)


def test_the_models_check_without_a_file_too() -> None:
    with pytest.raises(ValidationError):
        GatewayConfig.model_validate({"controllers": {"a": {"url": "a:1"}, "b": {"url": "tcp://a:1"}}})
    with pytest.raises(ValidationError):
        WebConfig.model_validate({"listen": "0.0.0.0:1"})


# Secrets never appear

SECRET = "S3cr3t/p@ss:w0rd?#&\\"
PLACES = [
    "[mqtt]\nurl = 'mqtt://h'\npassword = {}",
    "[mqtt]\nurl = 'mqtt://h'\npassword = {}\npassword_file = 'x'",
    "[mqtt]\nurl = 'mqtt://h'\npasword = {}",
    "[mqtt]\nurl = 'mqtt://h'\ntoken = {}",
    "[mqqt]\nurl = 'mqtt://h'\npassword = {}",
    "[mqtt]\nurl = {}",
    "mqtt = {}",
    "[web]\ntoken = {}\nauth = 'none'",
    "[web]\ntoken = [{}]",
    "[web]\nswitch_token = {}\nlisten = '0.0.0.0:1'",
    "[web]\nlisten = {}",
    "[web]\nunknown = {}",
    "[influx]\nurl = 'http://h'\nusername = 'u'\ntoken = {}",
    "[influx]\nurl = {}",
    "[history]\nurl = {}",
    "[log]\nlevel = {}",
    "[controllers.x]\nurl = {}",
    "[controllers.x]\nurl = 'sim:'\ninterval = {}",
]


@pytest.mark.parametrize("place", PLACES)
def test_a_secret_from_the_environment_is_in_no_error_and_no_repr(tmp_path: Path, place: str) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text(ROOF + place.format("'${SECRET}'"))
    try:
        text = repr(load_config(path, environment={"SECRET": SECRET}))
    except ConfigError as error:
        text = repr(error) + str(error) + repr(error.__context__) + repr(error.__cause__)
    assert "S3cr3t" not in text
    assert "w0rd" not in text


@pytest.mark.parametrize(
    "place",
    [
        *PLACES[:5],
        *(place for place in PLACES if "token = " in place),
        "[mqtt]\nurl = 'mqtt://user:{0}@h'",
        "[influx]\nurl = 'http://user:{0}@h'",
        "[influx]\nurl = 'ftp://user:{0}@h:99999'",
        "[history]\nurl = 'postgresql://user:{0}@h/d'",
        "[history]\nurl = 'postgresql://h/?password={0}'",
        "[controllers.x]\nurl = 'tcp://user:{0}@h:1'",
        "[controllers.x]\nurl = 'user:{0}@h'",
    ],
)
def test_a_secret_in_the_file_is_in_no_error_and_no_repr(tmp_path: Path, place: str) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text(ROOF + place.format("'S3cr3tp@ssw0rd'" if "{0}" not in place else "S3cr3tp@ss:w0rd"))
    try:
        text = repr(load_config(path))
    except ConfigError as error:
        text = repr(error) + str(error)
    assert "S3cr3t" not in text
    assert "w0rd" not in text


# Any file

keys = st.sampled_from(
    [
        "controllers",
        "roof",
        "url",
        "interval",
        "mqtt",
        "web",
        "token",
        "token_file",
        "hosts",
        "history",
        "log",
        "buffer",
    ]
) | st.text(max_size=8)
strings = st.text(max_size=20) | st.sampled_from(
    ["sim:", "a:1", "mqtt://h", "${A}", "${", "0.0.0.0:1", "http://[", "../x", "\0"]
)
values: st.SearchStrategy[Any] = st.recursive(
    strings | st.booleans() | st.integers() | st.floats() | st.datetimes() | st.dates() | st.times(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=12,
)
tables = st.dictionaries(keys, values, max_size=5)


def toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return '"' + "".join(f"\\U{ord(letter):08x}" for letter in value) + '"'
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml(key)} = {toml(item)}" for key, item in value.items()) + "}"
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("any")


@settings(deadline=None)
@given(tables)
def test_any_toml_gives_a_configuration_or_the_errors_of_one(folder: Path, table: dict[str, Any]) -> None:
    path = folder / "gateway.toml"
    path.write_text("\n".join(f"{toml(key)} = {toml(value)}" for key, value in table.items()), encoding="utf-8")
    check_any(path)


@settings(deadline=None)
@given(st.binary(max_size=300) | st.text(alphabet=string.printable, max_size=300).map(str.encode))
def test_any_bytes_give_a_configuration_or_the_errors_of_one(folder: Path, data: bytes) -> None:
    path = folder / "gateway.toml"
    path.write_bytes(data)
    check_any(path)


def check_any(path: Path) -> None:
    lines: list[str] = []
    try:
        assert load_config(path, environment={"A": "x"}).controllers
    except ConfigError as error:
        lines = error.errors or [""]
    assert all(len(line.splitlines()) == 1 and line.startswith(f"{path}: ") for line in lines)
    assert len(set(lines)) == len(lines)


@settings(deadline=None)
@given(
    st.sampled_from(PLACES),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=6, max_size=30).filter(
        lambda text: text.strip() == text and text not in "".join(PLACES)
    ),
)
def test_no_secret_appears_whatever_it_is(folder: Path, place: str, secret: str) -> None:
    path = folder / "gateway.toml"
    marked = f"QZ{secret}ZQ"
    path.write_text(ROOF + place.format("'${SECRET}'"), encoding="utf-8")
    try:
        text = repr(load_config(path, environment={"SECRET": marked}))
    except ConfigError as error:
        text = str(error)
    assert "QZ" not in text
    assert "ZQ" not in text
    assert secret not in text
