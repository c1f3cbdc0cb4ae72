// The services of the conformance tests on Restate's TypeScript SDK, and Node that hosts them. Run with a port: over
// HTTP/2, and with --http11 over HTTP/1.1.
//
// What each must do is told by `tests/conformance/test_behaviours.py`; `restate_py/app.py` and `perdure_app.py` do the
// same. `tally` counts in a file, since retries may come to another process.

import { appendFileSync, statSync } from "node:fs";
import * as http from "node:http";
import { join } from "node:path";
import * as restate from "@restatedev/restate-sdk";
import { RestatePromise, TerminalError } from "@restatedev/restate-sdk";
import type {
  Context,
  ObjectContext,
  ObjectSharedContext,
  WorkflowContext,
  WorkflowSharedContext,
} from "@restatedev/restate-sdk";

const LONG = { minutes: 5 };

/** How often this has been called with a token. */
function tally(token: string): number {
  const file = join(process.env.CONFORMANCE_TALLIES!, token);
  appendFileSync(file, ".");
  return statSync(file).size;
}

type Order = Record<string, any>;

// Objects ------------------------------------------------------------------------------------------------------------

/** Where handlers leave word for the tests. */
const board = restate.object({
  name: "Board",
  handlers: {
    put: async (ctx: ObjectContext, value: string): Promise<void> => ctx.set("value", value),
    read: restate.handlers.object.shared(
      async (ctx: ObjectSharedContext): Promise<string | null> => ctx.get<string>("value"),
    ),
  },
});

const counterHandlers = {
  add: async (ctx: ObjectContext, amount: number): Promise<number> => {
    const value = ((await ctx.get<number>("count")) ?? 0) + amount;
    ctx.set("count", value);
    return value;
  },
  get: restate.handlers.object.shared(
    async (ctx: ObjectSharedContext): Promise<number | null> => ctx.get<number>("count"),
  ),
  fill: async (ctx: ObjectContext, values: Record<string, number>): Promise<void> => {
    for (const [name, value] of Object.entries(values)) ctx.set(name, value);
  },
  keys: restate.handlers.object.shared(
    async (ctx: ObjectSharedContext): Promise<string[]> => (await ctx.stateKeys()).sort(),
  ),
  drop: async (ctx: ObjectContext, name: string): Promise<void> => ctx.clear(name),
  wipe: async (ctx: ObjectContext): Promise<string[]> => {
    ctx.clearAll();
    ctx.set("wiped", 1);
    return (await ctx.stateKeys()).sort();
  },
};

const counter = restate.object({ name: "Counter", handlers: counterHandlers });
const lazyCounter = restate.object({
  name: "LazyCounter",
  handlers: counterHandlers,
  options: { enableLazyState: true },
});

// Steps and values ---------------------------------------------------------------------------------------------------

const greeter = restate.service({
  name: "Greeter",
  handlers: {
    greet: async (ctx: Context, name: string): Promise<string> => {
      const greeting = await ctx.run("greet", () => `Hello ${name}`);
      await ctx.sleep(20);
      return greeting;
    },
  },
});

const echo = restate.service({
  name: "Echo",
  handlers: {
    nothing: async (ctx: Context): Promise<void> => {
      await ctx.run("nothing", () => undefined);
    },
    reverse: restate.handlers.handler(
      { input: restate.serde.binary, output: restate.serde.binary },
      async (ctx: Context, content: Uint8Array): Promise<Uint8Array> =>
        ctx.run("reverse", () => Uint8Array.from(content).reverse(), { serde: restate.serde.binary }),
    ),
    // That much is journaled, read again after a wait, and returned.
    big: async (ctx: Context, size: number): Promise<string> => {
      const content = await ctx.run("big", () => "x".repeat(size));
      await ctx.sleep(10);
      return content;
    },
    size: async (_: Context, content: string): Promise<number> => content.length,
    host: async (_: Context): Promise<string> => process.env.CONFORMANCE_HOST!,
    tone: async (ctx: Context): Promise<string | null> => ctx.request().headers.get("x-tone") ?? null,
  },
});

const steps = restate.service({
  name: "Steps",
  handlers: {
    many: async (ctx: Context, count: number): Promise<number> => {
      let total = 0;
      for (let number = 0; number < count; number++) total += await ctx.run(`step ${number}`, () => number);
      return total;
    },
    // A step is taken once, however often the handler is begun.
    once: async (ctx: Context, token: string): Promise<number> => {
      await ctx.run("count", () => tally(token));
      await ctx.sleep(10);
      return ctx.run("count again", () => tally(token));
    },
    // Whether chance is the same when it is replayed.
    chance: async (ctx: Context): Promise<boolean> => {
      const drawn = [ctx.rand.uuidv4(), String(ctx.rand.random())];
      const first = await ctx.run("drawn", () => drawn);
      await ctx.sleep(10);
      return JSON.stringify(drawn) === JSON.stringify(first);
    },
  },
});

// Calls --------------------------------------------------------------------------------------------------------------

const front: any = restate.service({
  name: "Front",
  handlers: {
    call: async (ctx: Context, name: string): Promise<string> =>
      "I heard: " + (await ctx.serviceClient(greeter).greet(name)),
    deep: async (ctx: Context, depth: number): Promise<number> =>
      depth === 0 ? 0 : 1 + (await ctx.serviceClient(front as any as { name: "Front" }).deep(depth - 1)),
    crowd: async (ctx: Context, order: Order): Promise<number[]> => {
      const calls = Array.from({ length: order.times }, () => ctx.objectClient(counter, order.key).add(1));
      return RestatePromise.all(calls);
    },
    send: async (ctx: Context, order: Order): Promise<string> => {
      const delay = restate.rpc.sendOpts({ delay: order.delay ?? 0 });
      return ctx.objectSendClient(counter, order.key).add(order.amount, delay).invocationId;
    },
    // The same call twice, by one idempotency key.
    twice: async (ctx: Context, order: Order): Promise<number[]> => {
      const once = restate.rpc.opts({ idempotencyKey: order.token });
      const first = await ctx.objectClient(counter, order.key).add(1, once);
      return [first, await ctx.objectClient(counter, order.key).add(1, once)];
    },
    loudly: async (ctx: Context): Promise<string | null> =>
      ctx.serviceClient(echo).tone(restate.rpc.opts({ headers: { "x-tone": "loud" } })),
    relay: async (ctx: Context, size: number): Promise<number> => ctx.serviceClient(echo).size("x".repeat(size)),
    // A workflow, from its beginning to its end.
    approve: async (ctx: Context, key: string): Promise<string> => {
      const running = ctx.workflowClient(approval, key).run("tea");
      await ctx.workflowClient(approval, key).decide("granted");
      return running;
    },
  },
});

// Failures -----------------------------------------------------------------------------------------------------------

const failing: any = restate.service({
  name: "Failing",
  handlers: {
    terminal: async (_: Context): Promise<void> => {
      throw new TerminalError("no such luck", { errorCode: 418 });
    },
    explained: async (_: Context): Promise<void> => {
      throw new TerminalError("no such luck", { errorCode: 418, metadata: { colour: "teal" } });
    },
    flaky: async (_: Context, order: Order): Promise<number> => {
      const attempts = tally(order.token);
      if (attempts < order.times) throw new Error(`attempt ${attempts} fails`);
      return attempts;
    },
    refused_step: async (ctx: Context): Promise<string> => {
      try {
        await ctx.run("refuse", () => {
          throw new TerminalError("the step refuses", { errorCode: 419 });
        });
      } catch (error) {
        if (!(error instanceof TerminalError)) throw error;
        await ctx.sleep(10);
        return `${error.code} ${error.message}`;
      }
      return "it was not refused";
    },
    // A step that fails until its nth try, or is given up after so many.
    flaky_step: async (ctx: Context, order: Order): Promise<number> => {
      const tryIt = () => {
        const tries = tally(order.token);
        if (tries < order.times) throw new Error(`try ${tries} fails`);
        return tries;
      };
      try {
        return await ctx.run("try", tryIt, {
          maxRetryAttempts: order.most,
          initialRetryInterval: 5,
          retryIntervalFactor: 1,
        });
      } catch (error) {
        if (!(error instanceof TerminalError)) throw error;
        return -tally(order.token) + 1;
      }
    },
    caught: async (ctx: Context): Promise<string> => {
      try {
        await ctx.serviceClient(failing as any as { name: "Failing" }).terminal();
      } catch (error) {
        if (!(error instanceof TerminalError)) throw error;
        return `${error.code} ${error.message}`;
      }
      return "nothing was caught";
    },
    // What a handler had done before it failed is done.
    kept: async (ctx: Context, key: string): Promise<void> => {
      ctx.objectSendClient(counter, key).add(7);
      throw new TerminalError("after the send", { errorCode: 418 });
    },
  },
  options: { retryPolicy: { initialInterval: 10, maxInterval: 20, exponentiationFactor: 1 } },
});

// Waiting for others -------------------------------------------------------------------------------------------------

const waiting = restate.service({
  name: "Waiting",
  handlers: {
    awakeable: async (ctx: Context, place: string): Promise<string> => {
      const { id, promise } = ctx.awakeable<string>();
      ctx.objectSendClient(board, place).put(id);
      return "awoken by " + (await promise);
    },
    resolve: async (ctx: Context, order: Order): Promise<void> => ctx.resolveAwakeable(order.id, order.value),
    reject: async (ctx: Context, order: Order): Promise<void> => ctx.rejectAwakeable(order.id, order.reason),
    // So many signals of one name, in the order in which they came.
    signals: async (ctx: Context, order: Order): Promise<string[]> => {
      ctx.objectSendClient(board, order.place).put(ctx.request().id);
      const words: string[] = [];
      while (words.length < order.count) words.push(await ctx.signal<string>("word"));
      return words;
    },
    signal: async (ctx: Context, order: Order): Promise<void> => {
      for (const word of order.words)
        ctx.invocation(restate.InvocationIdParser.fromString(order.id)).signal<string>("word").resolve(word);
    },
    attach: async (ctx: Context, id: string): Promise<number> =>
      ctx.attach<number>(restate.InvocationIdParser.fromString(id)),
    // Attach to what was sent and has yet to begin.
    slow_add: async (ctx: Context, order: Order): Promise<number> => {
      const sent = ctx.objectSendClient(counter, order.key).add(1, restate.rpc.sendOpts({ delay: 100 }));
      return ctx.attach<number>(await sent.invocationId);
    },
  },
});

// Several at once ----------------------------------------------------------------------------------------------------

const combining = restate.service({
  name: "Combining",
  handlers: {
    all_of: async (ctx: Context, names: string[]): Promise<string[]> =>
      RestatePromise.all(names.map((name) => ctx.serviceClient(greeter).greet(name))),
    race: async (ctx: Context, name: string): Promise<string> =>
      RestatePromise.race([
        ctx.sleep(LONG).map(() => "long: "),
        ctx.serviceClient(greeter).greet(name).map((value) => `call: ${value}`),
      ]),
    race_of_sleeps: async (ctx: Context): Promise<string> =>
      RestatePromise.race([ctx.sleep(LONG).map(() => "long"), ctx.sleep(20).map(() => "short")]),
    // The first that succeeds.
    any_of: async (ctx: Context, name: string): Promise<string> =>
      String(await RestatePromise.any([ctx.serviceClient(failing).terminal(), ctx.serviceClient(greeter).greet(name)])),
    settled: async (ctx: Context, name: string): Promise<string[]> => {
      const settled = await RestatePromise.allSettled([
        ctx.serviceClient(greeter).greet(name),
        ctx.serviceClient(failing).terminal(),
        ctx.sleep(10),
      ]);
      return settled.map((one) =>
        one.status === "fulfilled" ? `fulfilled ${one.value ?? "nothing"}` : `rejected ${one.reason.message}`,
      );
    },
    signal_or_sleep: async (ctx: Context, place: string): Promise<string> => {
      ctx.objectSendClient(board, place).put(ctx.request().id);
      return RestatePromise.race([
        ctx.signal<string>("word").map((word) => `word: ${word}`),
        ctx.sleep(LONG).map(() => "late: "),
      ]);
    },
  },
});

// Cancelling ---------------------------------------------------------------------------------------------------------

const cancelling: any = restate.service({
  name: "Cancelling",
  handlers: {
    sleeper: async (ctx: Context, place: string): Promise<void> => {
      ctx.objectSendClient(board, place).put(ctx.request().id);
      try {
        await ctx.sleep(LONG);
      } catch (error) {
        if (!(error instanceof TerminalError)) throw error;
        await ctx.objectClient(counter, place).add(-1);
        throw error;
      }
    },
    parent: async (ctx: Context, place: string): Promise<void> => {
      ctx.objectSendClient(board, `${place} parent`).put(ctx.request().id);
      await ctx.serviceClient(cancelling as any as { name: "Cancelling" }).sleeper(place);
    },
    cancel: async (ctx: Context, id: string): Promise<void> => ctx.cancel(restate.InvocationIdParser.fromString(id)),
  },
});

// Workflows ----------------------------------------------------------------------------------------------------------

const approval = restate.workflow({
  name: "Approval",
  handlers: {
    run: async (ctx: WorkflowContext, item: string): Promise<string> => {
      ctx.set("stage", "waiting");
      const decision = await ctx.promise<string>("decision");
      ctx.set("stage", "decided");
      return `${item} ${decision}`;
    },
    decide: async (ctx: WorkflowSharedContext, decision: string): Promise<void> =>
      ctx.promise<string>("decision").resolve(decision),
    refuse: async (ctx: WorkflowSharedContext, reason: string): Promise<void> =>
      ctx.promise<string>("decision").reject(reason),
    decision: async (ctx: WorkflowSharedContext): Promise<string | null> =>
      (await ctx.promise<string>("decision").peek()) ?? null,
    stage: async (ctx: WorkflowSharedContext): Promise<string | null> => ctx.get<string>("stage"),
  },
});

const services = [
  board, counter, lazyCounter, greeter, echo, steps, front, failing, waiting, combining, cancelling, approval,
];
const port = Number(process.argv[2]);

if (process.argv.includes("--http11")) {
  http.createServer(restate.createEndpointHandler({ services })).listen(port, "127.0.0.1");
} else {
  restate.serve({ services, port });
}
