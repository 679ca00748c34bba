// Node's memcached: text protocol, a pool of connections, callbacks.
"use strict";
const { promisify } = require("util");
const Memcached = require("memcached");

const client = new Memcached(process.env.SERVER, { poolSize: 4, timeout: 10000, retries: 0 });
const verbs = {};
for (const verb of ["touch", "get", "gets", "getMulti", "set", "replace", "add", "cas", "append",
    "prepend", "incr", "decr", "del", "version", "flush", "stats", "settings", "slabs", "items"]) {
    verbs[verb] = promisify(client[verb].bind(client));
}
// The client empties this list once its callback returns.
verbs.cachedump = promisify((server, number, most, done) =>
    client.cachedump(server, number, most, (error, entries) => done(error, [].concat(entries))));
// The same functions by other names, and what the client does within itself.
const others = ["increment", "decrement", "delete", "flushAll", "statsSettings", "statsSlabs",
    "statsItems", "end", "connect", "buffer", "multi", "command", "connectionIssue",
    "delegateCallback", "makeCallback", "rawDataReceived"];

const ok = (what) => console.log(`ok ${what}`);
const show = (value) => (JSON.stringify(value) ?? "undefined").slice(0, 300);

function same(what, found, expected) {
    if (show(found) !== show(expected)) {
        throw new Error(`${what}: expected ${show(expected)}, found ${show(found)}`);
    }
}

// What the server answers in place of success comes as an error.
async function refused(what, promise) {
    try {
        same(what, await promise, "an error");
    } catch (error) {
        if (error.message.startsWith(what)) throw error;
    }
}

async function cas(key, value) {
    const { cas: unique } = await verbs.gets(key);
    same("cas", await verbs.cas(key, value, unique, 0), true);
    same("cas with an old unique", await verbs.cas(key, value, unique, 0), false);
    same("get after cas", String(await verbs.get(key)), String(value));
}

async function named() {
    same("set", await verbs.set("js:1", "value", 1000), true);
    same("get", await verbs.get("js:1"), "value");
    same("get of what is not there", await verbs.get("js:0"), undefined);
    await refused("add", verbs.add("js:1", "x", 0));
    same("replace", await verbs.replace("js:1", "v2", 0), true);
    await refused("replace of what is not there", verbs.replace("js:0", "x", 0));
    same("append", await verbs.append("js:1", "!"), true);
    same("prepend", await verbs.prepend("js:1", "a "), true);
    same("get", await verbs.get("js:1"), "a v2!");
    await cas("js:1", "v3");
    same("touch", await verbs.touch("js:1", 1000), true);
    same("touch of what is not there", await verbs.touch("js:0", 1000), false);
    same("del", await verbs.del("js:1"), true);
    same("del", await verbs.del("js:1"), false);
    await verbs.set("js:n", 5, 0);
    same("incr", await verbs.incr("js:n", 3), 8);
    same("decr", await verbs.decr("js:n", 2), 6);
    same("incr of what is not there", await verbs.incr("js:0", 1), false);
    await verbs.set("js:object", { a: [1, "ö"] }, 0);
    same("an object", await verbs.get("js:object"), { a: [1, "ö"] });
    const keys = Array.from({ length: 300 }, (_, n) => `js:${n}`);
    await Promise.all(keys.map((key) => verbs.set(key, `value ${key}`, 0)));
    const found = await verbs.getMulti(keys);
    same("getMulti", keys.map((key) => found[key]), keys.map((key) => `value ${key}`));
    ok("named keys: set get gets getMulti add replace append prepend cas touch del incr decr");

    const large = "x".repeat(500000);
    same("set", await verbs.set("js:large", large, 0), true);
    same("get", (await verbs.get("js:large")) === large, true);
    ok("500,000 bytes");

    const [version] = await verbs.version();
    same("version", version.version.slice(0, 2), "1.");
    const [stats] = await verbs.stats();
    same("stats", stats.pointer_size, 64);
    const [settings] = await verbs.settings();
    same("settings", settings.maxconns > 0, true);
    same("slabs", (await verbs.slabs()).length, 1);
    const [items] = await verbs.items();
    ok("version stats settings slabs items");

    // As its manual shows it: the classes of `items` are asked for their keys.
    const classes = Object.keys(items).filter((name) => name !== "server").map(Number);
    const dumped = [];
    for (const number of classes) {
        const entries = await verbs.cachedump(items.server, number, 0);
        dumped.push(...entries.filter(Boolean).map((entry) => entry.key));
    }
    // memcached dumps what has left the first of its queues only: perhaps nothing yet.
    const missing = keys.filter((key) => !dumped.includes(key));
    same("cachedump", process.env.TYPED === "1" ? missing : [], []);
    ok("cachedump");
}

async function typed() {
    await verbs.del("2.1100");
    same("incr of a missing COUNTER", await verbs.incr("2.1100", 5), 5);
    same("a negative delta", await verbs.incr("2.1100", -2), 3);
    same("a negative decr", await verbs.decr("2.1100", -4), 7);
    same("not below 0", await verbs.decr("2.1100", 100), 0);
    same("set", await verbs.set("2.1101", 41, 0), true);
    same("a number comes back as one", await verbs.get("2.1101"), 41);
    await cas("2.1101", 7);
    await refused("x in a COUNTER", verbs.set("2.1101", "x", 0));
    await refused("append to a COUNTER", verbs.append("2.1101", "1"));
    same("the old value", await verbs.get("2.1101"), 7);
    ok("COUNTER: incr decr set get cas, negative deltas");

    const ids = Array.from({ length: 1200 }, (_, n) => 600000 + n);
    // It writes a backslash before a newline, so it sends one member at a time.
    same("set of an INDEX", await verbs.set("1.1100", "600000", 0), true);
    await refused("two lines", verbs.set("1.1100", "5\n6", 0));
    const append = (id) => verbs.append("1.1100", String(id));
    same("append", (await Promise.all(ids.map(append))).every(Boolean), true);
    same("fan-out", await verbs.incr("1.1100", 5), 1200);
    same("fan-out with a negative delta", await verbs.incr("1.1100", -2), 1200);
    const counters = await verbs.getMulti(ids.map((id) => `2.${id}`));
    same("how many", Object.keys(counters).length, 1200);
    same("all counters are equal", new Set(Object.values(counters)).size, 1);
    same("append", await verbs.append("1.1100", "5 6"), true);
    const members = (await verbs.get("1.1100")).split("\n");
    same("members", [members.length, members[0], members[1200]], [1201, "5 6", "601199 0"]);
    const prepend = (id) => verbs.prepend("1.1100", String(id));
    same("prepend", (await Promise.all(ids.map(prepend))).every(Boolean), true);
    await refused("prepend of what is not there", verbs.prepend("1.1100", "77"));
    same("members", await verbs.get("1.1100"), "5 6");
    await cas("1.1100", "7 8");
    ok("INDEX: fan-out to 1,200 counters, negative too, append, prepend, cas");

    await verbs.set("3.1100", "data", 0);
    await refused("incr of DATA", verbs.incr("3.1100", 1));
    const keys = ["2.1101", "1.1100", "3.1100"];
    const found = await verbs.getMulti([...keys, "3.1199"]);
    same("getMulti", [...keys, "3.1199"].map((key) => found[key]), [7, "7 8", "data", undefined]);
    for (const key of keys) {
        same("touch", await verbs.touch(key, 1000), true);
        same("del", await verbs.del(key), true);
        same("get", await verbs.get(key), undefined);
    }
    ok("getMulti touch del over COUNTER, INDEX, DATA");
}

async function main() {
    const known = [...Object.keys(verbs), ...others].sort();
    same("every method", Object.keys(Memcached.prototype).sort(), known);
    await named();
    if (process.env.TYPED === "1") await typed();
    same("flush", await verbs.flush(), [true]);
    same("get after flush", await verbs.get("js:7"), undefined);
    ok("flush");
    client.end();
}

main().catch((error) => {
    console.log("not ok", error);
    process.exit(1);
});
