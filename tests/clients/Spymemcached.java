// spymemcached, by its default connection factory: the text protocol, asynchronous.
import java.net.InetSocketAddress;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import net.spy.memcached.CASResponse;
import net.spy.memcached.MemcachedClient;

public class Spymemcached {
    private static MemcachedClient client;

    private static void ok(String what) {
        System.out.println("ok " + what);
    }

    private static void same(String what, Object found, Object expected) {
        if (!Objects.equals(String.valueOf(found), String.valueOf(expected))) {
            System.out.println("not ok " + what + ": expected " + expected + ", found " + found);
            System.exit(1);
        }
    }

    private static void yes(String what, Future<Boolean> call) throws Exception {
        same(what, call.get(10, TimeUnit.SECONDS), true);
    }

    /** The call says no, or that the server said so. */
    private static void no(String what, Future<Boolean> call) throws Exception {
        try {
            same(what, call.get(10, TimeUnit.SECONDS), false);
        } catch (java.util.concurrent.ExecutionException error) {
            same(what, error.getMessage().contains("CLIENT_ERROR"), true);
        }
    }

    private static void cas(String key, String value) {
        long unique = client.gets(key).getCas();
        same("cas", client.cas(key, unique, value), CASResponse.OK);
        same("cas with an old unique", client.cas(key, unique, value), CASResponse.EXISTS);
        same("get after cas", client.get(key), value);
        same("cas of nothing", client.cas(key + "9999", unique, value), CASResponse.NOT_FOUND);
    }

    private static void named() throws Exception {
        yes("set", client.set("java:1", 1000, "value"));
        same("get", client.get("java:1"), "value");
        no("add", client.add("java:1", 0, "x"));
        yes("replace", client.replace("java:1", 0, "v2"));
        no("replace of what is not there", client.replace("java:0", 0, "x"));
        yes("append", client.append("java:1", "!"));
        yes("prepend", client.prepend("java:1", "a "));
        same("get", client.get("java:1"), "a v2!");
        cas("java:1", "v3");
        yes("touch", client.touch("java:1", 1000));
        no("touch of what is not there", client.touch("java:0", 1000));
        yes("delete", client.delete("java:1"));
        no("delete", client.delete("java:1"));
        same("get", client.get("java:1"), null);
        yes("set", client.set("java:n", 0, "5"));
        same("incr", client.incr("java:n", 3), 8);
        same("decr", client.decr("java:n", 2), 6);
        same("incr of what is not there", client.incr("java:0", 1), -1);
        client.delete("java:made").get();
        same("incr with a default", client.incr("java:made", 3, 100L), 100);
        same("and again", client.incr("java:made", 3, 100L), 103);
        ok("named keys: set get gets add replace append prepend cas touch delete incr decr");

        List<Future<Boolean>> stores = new ArrayList<>();
        List<String> keys = new ArrayList<>();
        for (int n = 0; n < 500; n++) {
            keys.add("java:" + n);
            stores.add(client.set(keys.get(n), 0, "value " + n));
        }
        for (Future<Boolean> store : stores) yes("set", store);
        Map<String, Object> found = client.getBulk(keys);
        same("getBulk", found.size(), 500);
        same("one of them", found.get("java:499"), "value 499");
        ArrayList<Object> list = new ArrayList<>(Arrays.asList(1, "two"));
        yes("set", client.set("java:list", 0, list));
        same("a serialized value", client.get("java:list"), list);
        String large = "x".repeat(500_000);
        yes("set", client.set("java:large", 0, large));
        same("a compressed value", client.get("java:large").equals(large), true);
        ok("500 sets at once, getBulk, a serialized and a compressed value");

        String version = client.getVersions().values().iterator().next();
        same("version", version.startsWith("1.") || version.startsWith("VERSION 1."), true);
        Map<String, String> stats = client.getStats().values().iterator().next();
        same("stats", stats.get("pointer_size"), "64");
        Map<String, String> settings = client.getStats("settings").values().iterator().next();
        same("stats settings", settings.containsKey("maxconns"), true);
        Map<String, String> items = client.getStats("items").values().iterator().next();
        same("stats items", items.keySet().stream().anyMatch(it -> it.endsWith(":number")), true);
        Map<String, String> slabs = client.getStats("slabs").values().iterator().next();
        same("stats slabs", Integer.parseInt(slabs.get("active_slabs")) > 0, true);
        same("available", client.getAvailableServers().size(), 1);
        same("unavailable", client.getUnavailableServers().size(), 0);
        ok("version, stats, settings, items, slabs");
    }

    /** What gives a future, and what the others are made of. */
    private static void asynchronous() throws Exception {
        yes("set", client.set("java:async", 0, "5"));
        same("asyncGet", client.asyncGet("java:async").get(), "5");
        long unique = client.asyncGets("java:async").get().getCas();
        same("asyncCAS", client.asyncCAS("java:async", unique, "7").get(), CASResponse.OK);
        same("asyncCAS", client.asyncCAS("java:async", unique, "8").get(), CASResponse.EXISTS);
        same("asyncIncr", client.asyncIncr("java:async", 3).get(), 10);
        same("asyncDecr", client.asyncDecr("java:async", 4).get(), 6);
        same("asyncIncr of nothing", client.asyncIncr("java:nothing", 3).get(), -1);
        client.delete("java:late").get();
        same("decr with a default", client.decr("java:late", 3, 100L, 1000), 100);
        same("and again", client.decr("java:late", 3, 100L, 1000), 97);
        same("asyncGetBulk", client.asyncGetBulk("java:async", "java:0", "java:nothing").get().size(), 2);
        yes("append with a cas", client.append(unique, "java:async", "1"));
        yes("prepend with a cas", client.prepend(unique, "java:async", "1"));
        // A number keeps its length when it is stepped down.
        same("get", client.get("java:async"), "16 1");
        same("waitForQueues", client.waitForQueues(10, TimeUnit.SECONDS), true);
        // These are of its binary protocol only: it refuses them before it sends anything.
        refused("getAndTouch", () -> client.getAndTouch("java:0", 1000));
        refused("asyncGetAndTouch", () -> client.asyncGetAndTouch("java:0", 1000));
        refused("delete with a cas", () -> client.delete("java:async", 1L));
        refused("listSaslMechanisms", () -> client.listSaslMechanisms());
        ok("asyncGet asyncGets asyncCAS asyncIncr asyncDecr asyncGetBulk waitForQueues");
    }

    private static void refused(String what, java.util.function.Supplier<?> call) {
        try {
            same(what, call.get(), "an error");
        } catch (UnsupportedOperationException error) {
            return;
        }
    }

    private static void flush() throws Exception {
        yes("flush in an hour", client.flush(3600));
        same("get", client.get("java:1"), "value 1");
        yes("flush", client.flush());
        same("get after flush", client.get("java:1"), null);
        ok("flush, with a delay");
    }

    /** A verb that came with a new version would be missing here. */
    private static void everyMethod() {
        String called = "add addObserver append asyncCAS asyncDecr asyncGet asyncGetAndTouch asyncGetBulk"
            + " asyncGets asyncIncr broadcastOp cas connectionEstablished connectionLost decr delete flush"
            + " get getAndTouch getAvailableServers getBulk getConnection getExecutorService"
            + " getNodeLocator getOperationTimeout getStats getTranscoder getTranscoderService"
            + " getUnavailableServers getVersions gets incr listSaslMechanisms prepend removeObserver"
            + " replace set shutdown toString touch waitForQueues";
        List<String> methods = Arrays.stream(MemcachedClient.class.getDeclaredMethods())
            .filter(method -> java.lang.reflect.Modifier.isPublic(method.getModifiers()))
            .map(method -> method.getName()).distinct().sorted().collect(Collectors.toList());
        same("every method", String.join(" ", methods), called);
    }

    private static void typed() throws Exception {
        client.delete("2.1300").get();
        same("incr of a missing COUNTER", client.incr("2.1300", 5), 5);
        same("decr", client.decr("2.1300", 2), 3);
        same("a step of -1 in 32 bits", client.incr("2.1300", 4294967295L), 2);
        same("not below 0", client.decr("2.1300", 100), 0);
        yes("set", client.set("2.1301", 0, "41"));
        cas("2.1301", "7");
        no("x in a COUNTER", client.set("2.1301", 0, "x"));
        no("append to a COUNTER", client.append("2.1301", "1"));
        same("the old value", client.get("2.1301"), "7");
        ok("COUNTER: incr decr set get cas");

        List<String> ids = IntStream.range(600_000, 601_200).mapToObj(String::valueOf)
            .collect(Collectors.toList());
        String body = String.join("\n", ids);
        yes("set of an INDEX", client.set("1.1300", 0, body));
        same("fan-out", client.incr("1.1300", 5), 1200);
        same("fan-out down", client.decr("1.1300", 2), 1200);
        Map<String, Object> counters = client.getBulk(
            ids.stream().map(id -> "2." + id).collect(Collectors.toList()));
        same("how many", counters.size(), 1200);
        same("all counters are equal", new HashSet<>(counters.values()).size(), 1);
        yes("append", client.append("1.1300", "5 6"));
        yes("prepend", client.prepend("1.1300", body));
        no("prepend of what is not there", client.prepend("1.1300", "77"));
        same("members", client.get("1.1300"), "5 6");
        cas("1.1300", "7 8");
        ok("INDEX: fan-out to 1,200 counters, append, prepend, cas");

        yes("set", client.set("3.1300", 0, "data"));
        Map<String, Object> found = client.getBulk("2.1301", "1.1300", "3.1300", "3.1399");
        same("getBulk", new java.util.TreeMap<>(found), "{1.1300=7 8, 2.1301=7, 3.1300=data}");
        for (String key : Arrays.asList("2.1301", "1.1300", "3.1300")) {
            yes("touch", client.touch(key, 1000));
            yes("delete", client.delete(key));
            same("get", client.get(key), null);
        }
        ok("getBulk touch delete over COUNTER, INDEX, DATA");
    }

    public static void main(String[] arguments) throws Exception {
        int port = Integer.parseInt(System.getenv("PORT"));
        client = new MemcachedClient(new InetSocketAddress(System.getenv("HOST"), port));
        // The threads of the client would go on.
        Thread.currentThread().setUncaughtExceptionHandler((thread, error) -> {
            error.printStackTrace();
            System.exit(1);
        });
        everyMethod();
        named();
        asynchronous();
        if ("1".equals(System.getenv("TYPED"))) typed();
        flush();
        client.shutdown(10, TimeUnit.SECONDS);
    }
}
