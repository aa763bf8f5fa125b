// Verifies a request as the reference library of Standard Webhooks does, and prints its body.
const { Webhook } = require("standardwebhooks");

const request = JSON.parse(require("node:fs").readFileSync(0, "utf8"));
process.stdout.write(JSON.stringify(new Webhook(request.secret).verify(request.body, request.headers)));
