"""Verifies a request as the reference library of Standard Webhooks does, and prints its body."""

import json
import sys

from standardwebhooks.webhooks import Webhook

request = json.load(sys.stdin)
json.dump(Webhook(request["secret"]).verify(request["body"], request["headers"]), sys.stdout)
