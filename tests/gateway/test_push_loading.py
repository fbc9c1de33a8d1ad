"""The table `push` of an app: what it says, and each mistake in it with its key."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from rawws.gateway.config import ConfigError
from rawws.gateway.loading import read_config
from rawws.gateway.push_loading import services_of
from rawws.integrations.push import PUSH_HOSTS, new_vapid_key
from tests.gateway.running import app_file
from tests.integrations.push_doubles import KEY_ID, TEAM, PushDouble, account_of, apns_key

WEB = '[app.push.web]\nkey = "{}"\nsubject = "mailto:ops@example.com"\n'
APNS = f'[app.push.apns]\nkey = "file:KEY"\nkey_id = "{KEY_ID}"\nteam_id = "{TEAM}"\ntopic = "com.example"\n'
FCM = '[app.push.fcm]\naccount = "file:ACCOUNT"\n'


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "KEY").write_text(apns_key())
    (tmp_path / "ACCOUNT").write_text(account_of(PushDouble()))
    return tmp_path


def test_it_says_by_which_services_and_shows_no_secret(files: Path) -> None:
    key, _ = new_vapid_key()
    text = (WEB.format(key) + APNS + FCM).replace("file:", f"file:{files}/")
    config = read_config(app_file(f"[app.push]\nafter = 7\n{text}"))
    [app] = config.apps
    assert app.push is not None
    assert app.tells_missed
    assert app.push.after == 7
    assert app.push.web is not None
    assert app.push.web.hosts == PUSH_HOSTS
    assert app.push.apns is not None
    assert app.push.apns.url == "https://api.push.apple.com"
    assert [service.name for service in services_of(app.push)] == ["web", "apns", "fcm"]
    assert key not in repr(config)
    assert "PRIVATE" not in repr(config)
    assert not read_config(app_file()).apps[0].tells_missed


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("[app.push]", "app[0].push.web: there is none of web, apns and fcm, needed is one"),
        ("[app.push]\nafter = -1\n" + WEB, "app[0].push.after: it is -1, allowed are 0 to 3600.0"),
        ("[app.push.sms]\n" + WEB, "app[0].push.sms: there is no such key"),
        (WEB.replace("{}", "short"), "app[0].push.web.key: the key is none of P-256, needed is PEM, or 32 bytes"),
        (
            WEB.replace("mailto:ops@", "ops@"),
            "app[0].push.web.subject: subject is 'ops@example.com', allowed are those",
        ),
        (WEB + 'hosts = ["https://x"]', "app[0].push.web.hosts[0]: it is 'https://x', allowed is a host"),
        (APNS.replace(KEY_ID, "short"), "app[0].push.apns.key_id: key_id is 'short', allowed are 10"),
        (APNS.replace('topic = "com.example"', ""), "app[0].push.apns.topic: it is missing"),
        (FCM.replace("file:ACCOUNT", "{}"), "app[0].push.fcm.account: the service account is no JSON object"),
        (FCM + 'url = "x"', "app[0].push.fcm.url: it is no URL"),
    ],
)
def test_a_mistake_is_told_with_its_key(files: Path, text: str, mistake: str) -> None:
    text = text.replace('key = "{}"', f'key = "{new_vapid_key()[0]}"').replace("file:", f"file:{files}/")
    with pytest.raises(ConfigError) as caught:
        read_config(app_file(text))
    assert len(caught.value.mistakes) == 1, caught.value.mistakes
    assert caught.value.mistakes[0].startswith(mistake)


@pytest.mark.parametrize("backplane", ["workers", "nats://127.0.0.1", "redis+sentinel://a/b"])
def test_devices_need_a_redis(backplane: str) -> None:
    head = f'[gateway]\nbackplane = "{backplane}"'
    with pytest.raises(
        ConfigError, match=r"app\[0\].push: devices are kept in a Redis, needed is a backplane of redis://"
    ):
        read_config(app_file(WEB.format(new_vapid_key()[0]), head=head))


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    text = WEB.format(new_vapid_key()[0])
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.asymmetric", None)
    with pytest.raises(
        ConfigError, match=r"app\[0\].push.web.key: push needs cryptography.* pip install 'rawws\[push\]'"
    ):
        read_config(app_file(text))
