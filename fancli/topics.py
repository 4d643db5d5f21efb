"""The texts of `fan help TOPIC`."""

from __future__ import annotations

from fancli.exits import MEANINGS, exit_of

_PAYLOAD = """\
The arguments of a call come from exactly one place.

Items      name=Bob         text; the method's schema turns it into a number, a boolean, ...
           n:=3             JSON
           tags[]=a         appends to a list
           addr[city]=X     nests
           note=@f.txt      the file's text (bytes for a bytes parameter)
           cfg:=@f.json     the file's JSON; @- is stdin
           =x  :=1          positional
           a\\=b=c           a backslash takes = : [ ] literally
JSON       '{"a":1}'        by name;  '[1,2]' by position
-d         -d '{"a":1}'     -d @FILE   -d - (stdin)
SHON       [ --a 1 --o [ --x -t ] ]    -t -f -n are true, false, null; -- x is the text x

stdin is read only where - or @- asks for it.

`fan push` takes the same, and an event (--topic) too: where a registered service handles the topic,
its types turn the text of items into values.
"""

_ENV = """\
FAN_REGISTRY     sqlite:PATH, memory: or zk://h1,h2/chroot
FAN_NAMESPACE    registry namespace
FAN_PROFILE      profile of the settings
FAN_TIMEOUT      whole budget of a call: 300ms, 5s, 2m
FAN_QUEUE        where events go: database, redis, amqp
FAN_AMQP_URL     amqp://user:password@host:port/vhost
FAN_REDIS_URL    redis://:password@host:port/0
FAN_...          every setting of `fan settings show`, in capitals
FAN_CONFIG_...   overrides a config in code: FAN_CONFIG_ORDERS_THEME for orders/theme
FAN_DEBUG        1 shows tracebacks
NO_COLOR FORCE_COLOR TERM=dumb COLUMNS    as everywhere

Flags win over FAN_* variables, the profile, the project's fan.toml (upward to the root of the
version control), $XDG_CONFIG_HOME/fan/config.toml and /etc/fan/config.toml.

A credential may be a reference, env:NAME or file:PATH: a whole setting (redis_url = "env:REDIS"),
or the password of a URL (amqp://shop:file:/run/secrets/rabbit@mq/), in --registry and -p, too. It
is read when it is used.

fan shell keeps its lines in $XDG_STATE_HOME/fan/history.
"""

_ROUTING = """\
greeter.hello           the routed version; a service's first version gets the route
greeter.hello@2         the highest live 2.x;  @2.1.0  @~=2.1  '@>=1,<3'
greeter.hello@canary    the routed version with the smaller weight
-t ipc                  over this transport; auto takes ipc on the same host
--instance ID           this instance and no other
-p URL                  no registry: http://HOST:PORT, unix:///PATH, amqp://HOST/VHOST,
                        redis://HOST/0, local:MODULE[:CLASS]
-P FILE|URL             addresses, one a line, or a list in JSON or YAML
--sk KEY                the same shard key reaches the same instance; where a service is sharded by
                        a path, a path of it, by default made of the call's arguments
--rk KEY                the same routing key reaches the same version
--fanout                every instance, of all versions or of the one behind the @

Over a broker (amqp, redis) all instances of a version take turns; its URL is the setting amqp_url
or redis_url, and what -p names may carry a password, which is never shown.

fan push                to a queue that an instance is served over, else to an instance; of a
                        service that is down, what is meant to be pushed goes to the setting `queue`
fan push -t redis       into the service's queue, whether anybody is up or not; also amqp, database
fan push --topic T      to all who subscribed, over the setting `queue`, -t or -p

fan discover resolve TARGET --explain says where a call would go, and why.
"""

_FILES = """\
A request in a file, for `fan call -f FILE` (- is stdin): YAML, JSON or TOML.

    #!/usr/bin/env -S fan call -f
    target: greeter.hello
    timeout: 2s
    headers: {x-team: blue}
    baggage: {user: "7"}
    args:
      name: ${name:-World}
    expect: Hello ${name:-World}

args         the arguments: a map by name, a list by position. data is the same, and may be JSON in
             a text, or @FILE beside the file. Beside data by name, args are defaults for ${}.
expect       the result; or conditions: result, result.a[0], code, reason, type, message, executed,
             exit, version, instance, ok. Of an object only the members that are named count.
${name}      filled by -A name=Bob, or -A n:=3 (JSON); ${name:-World} has a default
${env:HOME}  from the environment; ${env:HOME:-x}; $${x} is the text ${x}

What is on the command line wins over the file. An unknown key is exit 2 with file and line, a reply
that is not as expected exit 9.
"""

_HTTP_SERVICES = """\
A service that speaks HTTP and knows nothing of fan is registered from a file:

  x-defaults: &json {content_type: application/json}
  services:
    - name: billing
      version: "1.2.0"
      addr: http://%{LOCAL_IP}:%{PORT:-8080}
      methods:
        - {name: ping, url: /ping/}
        - {<<: *json, name: charge, url: "/customers/{id}/charge", method: POST}
        - {name: find, url: /search, params: {text: {type: string}}, timeout: 2}

  fan discover register -f services.yaml -- ./billing --port 8080
  fan call billing.charge id=7 amount:=12.5

%{NAME} is a variable of the environment, %{NAME:-x} has a default; LOCAL_IP is this host's address.
What is in the braces of a url is taken from the arguments; the others go into the query for GET,
HEAD, DELETE and OPTIONS, else into the body, as content_type says. A method may also have doc,
params (name: JSON Schema), query (names that go there all the same), body (the argument that is
all of the body), idempotent, timeout. Instead of a file: --openapi URL|FILE (3.x).

With CMD the registration lasts as long as CMD runs, and CMD's exit status is ours.
"""

_OUTPUT = """\
stdout is the result, stderr is talk; a failed command leaves stdout empty, except with --json.

--json     one object: {"v":1, "ok":true, "target", "version", "transport", "instance", "gen",
           "result", "headers", "trace_id", "attempts", "timing_ms"}; a failure has "ok":false and
           "error":{"code", "reason", "exit", "message", "type", "details", "executed",
           "retryable"}
-r         a text result without quotes, bytes as they are
Lists      aligned on a terminal; piped, separated by tabs, without a head (--headers adds it);
           --format table|json|yaml|name
Streams    a line of JSON for each item; --timeout is how long each item may take, not all of them
-v -vv     route and meta; bodies; -vvv the envelope; secrets masked unless --show-secrets
"""

_CODES: dict[str, str] = {
    "cancelled": "The caller gave up before there was a result. It may have run.",
    "unknown": "The handler raised something that it does not declare, or a call that it made"
    " failed (reason downstream_failed, the original in the details).",
    "invalid_argument": "The arguments do not fit the method; the handler did not run."
    " `fan discover describe SERVICE.METHOD` says what fits.",
    "deadline_exceeded": "No reply within the budget. Unless executed is no it may still have run;"
    " --timeout gives it longer.",
    "not_found": "Executed no: no service of that name is registered (exit 3). Executed yes: the"
    " application did not find something (exit 4).",
    "already_exists": "Executed no: an id is taken (exit 10). Executed yes: the application's.",
    "aborted": "Somebody else's change came first (conflict), or a participant said no (nack).",
    "permission_denied": "Known, and not allowed.",
    "unauthenticated": "Not known.",
    "resource_exhausted": "A limit is reached (bulkhead_full, quota): later or elsewhere it may"
    " work. payload_too_large never will.",
    "failed_precondition": "The system is not in the state that this needs: version_missing,"
    " dependency_missing, paused, max_hops.",
    "out_of_range": "Past the end of what there is.",
    "unimplemented": "The service has no such method (unknown_method), or the transport no such"
    " ability.",
    "internal": "A result that cannot be sent (unserializable_result), or a reply that cannot be"
    " read (malformed_reply).",
    "unavailable": "Nobody can be reached: no_instance, connect_failed, draining, circuit_open; it"
    " did not run. connection_lost: it may have.",
    "data_loss": "Data is damaged or gone.",
}


def _exit_codes() -> str:
    return "\n".join(f"{code.value:>4}  {meaning}" for code, meaning in MEANINGS.items())


def _errors() -> str:
    lines = [
        "An error has a code, a reason, and `executed`: no, maybe or yes, which alone decides",
        "whether a retry is safe. fan help error CODE has more.",
        "",
        f"{'code':<22}exit when executed is no / maybe / yes",
    ]
    for code in _CODES:
        exits = [str(int(exit_of(code, "", executed))) for executed in ("no", "maybe", "yes")]
        lines.append(f"{code:<22}{' / '.join(exits) if len(set(exits)) > 1 else exits[0]}")
    return "\n".join(lines)


def topic(name: str) -> str | None:
    """The text of a topic, None where there is none."""
    if name == "exit-codes":
        return _exit_codes()
    if name == "errors":
        return _errors()
    return {
        "payload": _PAYLOAD,
        "files": _FILES,
        "env": _ENV,
        "http-services": _HTTP_SERVICES,
        "routing": _ROUTING,
        "output": _OUTPUT,
    }.get(name)


#: What `fan help` lists.
TOPICS: dict[str, str] = {
    "payload": "how arguments are typed",
    "files": "requests in files",
    "output": "what is printed where, and --json",
    "exit-codes": "what an exit status says",
    "errors": "the error codes; fan help error CODE explains one",
    "http-services": "services that know nothing of fan",
    "routing": "which version, instance, transport and queue a message goes to",
    "env": "environment variables and files",
}


def error(code: str) -> str | None:
    """What an error code means and what to do, None for an unknown one."""
    about = _CODES.get(code)
    if about is None:
        return None
    exits = [
        f"executed {said}: exit {int(exit_of(code, '', said))}" for said in ("no", "maybe", "yes")
    ]
    return f"{code}\n\n{about}\n\n{', '.join(exits)}"


def error_codes() -> list[str]:
    """Every code."""
    return list(_CODES)
