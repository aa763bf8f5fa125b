"""Reads a request as the CloudEvents SDK does, and prints what it has understood."""

import json
import sys

from cloudevents.core.bindings.http import HTTPMessage, from_http_event

request = json.load(sys.stdin)
event = from_http_event(HTTPMessage(request["headers"], request["body"].encode()))
json.dump({"attributes": event.get_attributes(), "data": event.get_data()}, sys.stdout, default=lambda time: time.isoformat())
