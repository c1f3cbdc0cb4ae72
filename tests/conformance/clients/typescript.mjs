// What npm's @restatedev/restate-sdk-clients does against the conformance services, told as one line of JSON.

import * as clients from "@restatedev/restate-sdk-clients";

const [url, key] = process.argv.slice(2);
const ingress = clients.connect({ url, retry: true });
const [Greeter, Counter, Failing, Board, Waiting, Approval] = [
  "Greeter", "Counter", "Failing", "Board", "Waiting", "Approval",
].map((name) => ({ name }));
const once = (word) => clients.SendOpts.from({ idempotencyKey: `${key} ${word}` });

const failure = async (promise) => promise.then(() => null, (error) => [error.status, JSON.parse(error.responseText).message]);

/** Somebody who waits for an awakeable, and its id. */
async function waiting(place) {
  const sent = await ingress.serviceSendClient(Waiting).awakeable(place, once(place));
  for (;;) {
    const id = await ingress.objectClient(Board, place).read();
    if (id) return [sent, id];
  }
}

const told = {};
told.call = await ingress.serviceClient(Greeter).greet("Mary");
told.object = [await ingress.objectClient(Counter, `${key}/a b`).add(2), await ingress.objectClient(Counter, `${key}/a b`).add(3)];
told.nothing = (await ingress.objectClient(Board, key).put("word")) ?? null;
told.refused = await failure(ingress.serviceClient(Failing).terminal());

const sent = await ingress.serviceSendClient(Greeter).greet("Ann", clients.SendOpts.from({ idempotencyKey: key, delay: 50 }));
const again = await ingress.serviceSendClient(Greeter).greet("Ann", clients.SendOpts.from({ idempotencyKey: key }));
told.sent = [sent.status, again.status, again.invocationId === sent.invocationId, await ingress.result(sent)];
told.once = await ingress.serviceClient(Greeter).greet("Ann", clients.Opts.from({ idempotencyKey: key }));

const workflow = ingress.workflowClient(Approval, `${key}/w`);
told.submitted = [(await workflow.workflowSubmit("a chair")).status, (await workflow.workflowSubmit("a table")).status];
told.early = (await workflow.workflowOutput()).ready;
const attached = workflow.workflowAttach();
await workflow.decide("yes");
told.attached = await attached;
told.output = (await workflow.workflowOutput()).result === told.attached;
told.again = (await failure(workflow.run("a chair")))[0];

const [resolved, good] = await waiting(`${key} resolved`);
await ingress.resolveAwakeable(good, "Mary");
told.resolved = await ingress.result(resolved);
const [rejected, bad] = await waiting(`${key} rejected`);
await ingress.rejectAwakeable(bad, "too late");
told.rejected = await failure(ingress.result(rejected));

console.log(JSON.stringify(told));
