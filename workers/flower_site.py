"""Flower's process: its pages, with ``/metrics`` behind the same door, and without what would put jobs in wrongly.

``fleet flower`` starts it with all that it is told in the environment, under Flower's own names.
"""

import contextlib
import re
import signal
import sys
from typing import Any, Final

from flower.api import BaseApiHandler
from flower.app import Flower
from flower.command import apply_env_options, extract_settings, print_banner, setup_logging, sigterm_handler
from flower.options import options
from flower.urls import settings
from flower.views import BaseHandler, auth, monitor
from tornado.options import parse_command_line
from tornado.web import HTTPError, RedirectHandler, authenticated, url

from workers.exit_codes import EXIT_CONFIGURATION
from workers.flower_app import app

SUBMIT: Final = "jobs are not put in here: use the gateway, fleet submit, or the producer"
ABORT: Final = "generation is no abortable task: revoke it, with terminate when it runs"
RESULT: Final = "answers are not read here: use the gateway, fleet result, or the producer"
REFUSED: Final = {
    "task/apply": SUBMIT,
    "task/async-apply": SUBMIT,
    "task/send-task": SUBMIT,
    "task/abort": ABORT,
    "task/result": RESULT,
}
"""Parts of Flower's API; what a message of its own making lacks is the job's record, and limits."""


NEXT: Final = "next"
"""Cookie with the page that a visitor asked for, signed."""
LOCAL: Final = re.compile(r"/(?![/\\])[^\\\s\x00-\x1f]{0,2000}")
"""A path of this site: two slashes, or one that browsers take for a slash, would begin another host's name."""
LOGIN_DAYS: Final = 0.01
"""A quarter of an hour."""


class GuardedMetrics(monitor.Metrics):
    """Flower shows its own to anybody."""

    async def get(self) -> None:
        """To whom the other pages are shown."""
        if not self.current_user:
            raise HTTPError(401)
        await super().get()


class Refused(BaseApiHandler):
    """Says what to use instead."""

    def initialize(self, instead: str) -> None:
        """Tornado calls this."""
        self._instead = instead

    @authenticated
    def get(self, *_: str) -> None:
        """Whatever it names."""
        raise HTTPError(403, self._instead)

    post = get


class Remembers(BaseHandler):
    """Before a provider's login page: Flower forgets on the way there which page the visitor had asked for."""

    async def get(self) -> None:
        """To the provider, and back from it with a code."""
        if not self.get_argument("code", ""):
            wanted = self.get_argument("next", "")
            self.set_secure_cookie(NEXT, wanted if LOCAL.fullmatch(wanted) else "", expires_days=LOGIN_DAYS)
        else:
            wanted = (self.get_secure_cookie(NEXT, max_age_days=LOGIN_DAYS) or b"").decode()
            self.clear_cookie(NEXT)
            # Whoever made this link may not say where it leads.
            self.request.arguments.pop("next", None)
            if wanted:
                self.request.arguments["next"] = [wanted.encode()]
        await super().get()


class FleetFlower(Flower):
    """Flower with these pages before its own."""

    def __init__(self, **given: Any) -> None:  # noqa: ANN401 - Flower's
        super().__init__(**given)
        prefix = f"/{self.options.url_prefix}" if self.options.url_prefix else ""
        pages: list[Any] = [
            (f"{prefix}/metrics", GuardedMetrics),
            # Also without the prefix: who probes it comes past the proxy.
            ("/healthcheck", monitor.Healthcheck),
            *(
                url(f"{prefix}/api/{path}/(.+)", Refused, {"instead": instead}, name=path)
                for path, instead in REFUSED.items()
            ),
        ]
        if self.options.auth_provider:
            provider = getattr(auth, self.options.auth_provider.rpartition(".")[2])
            pages.append((f"{prefix}/login", type("Login", (Remembers, provider), {})))
        if prefix:
            pages.append((prefix, RedirectHandler, {"url": f"{prefix}/", "permanent": False}))
        self.add_handlers(".*", pages)


def main() -> int:
    """Until SIGTERM or Ctrl-C; then what it knows is kept."""
    apply_env_options()
    parse_command_line(sys.argv[:1])
    extract_settings()
    setup_logging()
    signal.signal(signal.SIGTERM, sigterm_handler)
    flower = FleetFlower(capp=app, options=options, **settings)
    try:
        port = flower.start_http_server()
    except OSError as error:
        place = f"{options.address}:{options.port}"
        sys.stderr.write(f"Flower cannot listen on {place} ({error.strerror}); set flower.port to a free one\n")
        return EXIT_CONFIGURATION
    print_banner(app, ssl=False, port=port)
    with contextlib.suppress(KeyboardInterrupt, SystemExit):
        flower.start()
    # Before the interpreter waits for threads, which may hang on a server that is away.
    flower.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
