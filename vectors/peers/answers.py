"""Prints what the Python peers answer to the conformance vectors, as JSON.

Arguments: the folder of the vectors. Cases for another time than the system clock's are left out.
"""

import base64
import json
import re
import sys
import time

import standardwebhooks
import svix.webhooks

TOLERANCE = 300
NAMES = ["webhook-id", "webhook-timestamp", "webhook-signature"]

folder = sys.argv[1]
now = int(time.time())


def read(name):
    with open(f"{folder}/{name}.json", encoding="utf-8") as file:
        return json.load(file)


def as_dict(pairs):
    """Returns a dictionary of headers; None if it cannot be one."""
    headers = {}
    for name, value in pairs:
        # Control characters are not valid in HTTP, and a dictionary has no duplicates.
        if re.search(r"[\0-\x08\x0a-\x1f\x7f]", value) or name.lower() in headers:
            return None
        headers[name.lower()] = value
    return headers


def answer(run):
    """Runs a check. Errors that are not the library's own are named."""
    try:
        run()
        return "accepts"
    except standardwebhooks.WebhookVerificationError:
        return "rejects"
    except Exception as error:
        return f"rejects ({type(error).__name__})"


def verify_standard(secret, body, headers):
    standardwebhooks.Webhook(secret).verify(body, headers, json_parse=False)


def verify_svix(secret, body, headers):
    svix.webhooks.Webhook(secret).verify(body, headers)


def answers_of(webhook, verify):
    found = {}
    for case in read("verify")["cases"]:
        if case["now"] != now or case["tolerance"] != TOLERANCE:
            continue
        values = [case[field] for field in ("id_b64", "timestamp_b64", "signature_b64")]
        headers = as_dict(
            (name, base64.b64decode(value).decode("latin-1"))
            for name, value in zip(NAMES, values)
            if value is not None
        )
        if headers is None:
            continue
        body = base64.b64decode(case["body_b64"])
        each = [
            answer(lambda secret=secret: verify(secret, body, headers))
            for secret in case["secrets"]
        ]
        found["verify/" + case["name"]] = "accepts" if "accepts" in each else each[0]
    requests = read("headers")
    if requests["now"] != now:
        return found
    for case in requests["cases"]:
        headers = as_dict(case["headers"])
        if headers is not None:
            found["headers/" + case["name"]] = answer(
                lambda: verify(requests["secret"], requests["body"].encode(), headers)
            )
    for case in read("secrets")["cases"]:
        made = answer(lambda: webhook(case["secret"]))
        found["secrets/" + case["name"]] = "accepts" if made == "accepts" else "rejects"
    return found


print(
    json.dumps(
        {
            "standardwebhooks": answers_of(standardwebhooks.Webhook, verify_standard),
            "svix": answers_of(svix.webhooks.Webhook, verify_svix),
        }
    )
)
