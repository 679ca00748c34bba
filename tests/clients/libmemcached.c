/* libmemcached's C API: what the tools do not reach. Offsets are unsigned and 32 bits wide, so
 * a negative one arrives at the server as 2^32 minus its size. */
#include <libmemcached/memcached.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static memcached_st *mc;

static void ok(const char *what) { printf("ok %s\n", what); }

static void check(int condition, const char *what, memcached_return_t rc) {
    if (condition) return;
    printf("not ok %s: %s, %s\n", what, memcached_strerror(mc, rc),
           memcached_last_error_message(mc));
    exit(1);
}

static void set(const char *key, const char *value) {
    memcached_return_t rc =
        memcached_set(mc, key, strlen(key), value, strlen(value), 0, 0);
    check(rc == MEMCACHED_SUCCESS, key, rc);
}

static void same(const char *key, const char *expected) {
    size_t length;
    uint32_t flags;
    memcached_return_t rc;
    char *value = memcached_get(mc, key, strlen(key), &length, &flags, &rc);
    if (expected == NULL) {
        check(rc == MEMCACHED_NOTFOUND, key, rc);
        return;
    }
    check(rc == MEMCACHED_SUCCESS && length == strlen(expected) &&
              memcmp(value, expected, length) == 0,
          key, rc);
    free(value);
}

static void step(const char *key, uint32_t offset, uint64_t expected) {
    uint64_t value = 0;
    memcached_return_t rc = memcached_increment(mc, key, strlen(key), offset, &value);
    check(rc == MEMCACHED_SUCCESS && value == expected, key, rc);
}

static void step_down(const char *key, uint32_t offset, uint64_t expected) {
    uint64_t value = 0;
    memcached_return_t rc = memcached_decrement(mc, key, strlen(key), offset, &value);
    check(rc == MEMCACHED_SUCCESS && value == expected, key, rc);
}

static void cas(const char *key, const char *value) {
    memcached_return_t rc;
    const char *keys[] = {key};
    size_t lengths[] = {strlen(key)};
    memcached_behavior_set(mc, MEMCACHED_BEHAVIOR_SUPPORT_CAS, 1);
    rc = memcached_mget(mc, keys, lengths, 1);
    check(rc == MEMCACHED_SUCCESS, "gets", rc);
    memcached_result_st *result = memcached_fetch_result(mc, NULL, &rc);
    check(result != NULL, "gets", rc);
    uint64_t unique = memcached_result_cas(result);
    memcached_result_free(result);
    while ((result = memcached_fetch_result(mc, NULL, &rc)) != NULL) memcached_result_free(result);
    check(unique != 0, "a cas unique", rc);
    rc = memcached_cas(mc, key, strlen(key), value, strlen(value), 0, 0, unique);
    check(rc == MEMCACHED_SUCCESS, "cas", rc);
    rc = memcached_cas(mc, key, strlen(key), value, strlen(value), 0, 7, unique);
    check(rc == MEMCACHED_DATA_EXISTS, "cas with an old unique", rc);
    memcached_behavior_set(mc, MEMCACHED_BEHAVIOR_SUPPORT_CAS, 0);
    same(key, value);
}

static void named(void) {
    memcached_return_t rc;
    set("c:name", "value");
    same("c:name", "value");
    rc = memcached_append(mc, "c:name", 6, "!", 1, 0, 0);
    check(rc == MEMCACHED_SUCCESS, "append", rc);
    rc = memcached_prepend(mc, "c:name", 6, "a ", 2, 0, 0);
    check(rc == MEMCACHED_SUCCESS, "prepend", rc);
    same("c:name", "a value!");
    cas("c:name", "b");
    rc = memcached_touch(mc, "c:name", 6, 1000);
    check(rc == MEMCACHED_SUCCESS, "touch", rc);
    rc = memcached_exist(mc, "c:name", 6);
    check(rc == MEMCACHED_SUCCESS, "exist", rc);
    rc = memcached_delete(mc, "c:name", 6, 0);
    check(rc == MEMCACHED_SUCCESS, "delete", rc);
    rc = memcached_exist(mc, "c:name", 6);
    check(rc == MEMCACHED_NOTFOUND, "exist", rc);
    set("c:number", "5");
    step("c:number", 7, 12);
    step_down("c:number", 2, 10);
    step("c:number", 4294967295U, 4294967305ULL);
    ok("named keys: set get append prepend cas touch exist delete incr decr");
}

static void typed(void) {
    uint64_t value;
    memcached_return_t rc;
    char *body = malloc(32 * 1024), *end = body;
    memcached_delete(mc, "2.100", 5, 0);
    step("2.100", 10, 10);
    step("2.100", (uint32_t)-1, 9);
    step("2.100", (uint32_t)-4, 5);
    step_down("2.100", 3, 2);
    step("2.100", (uint32_t)-100, 0);
    step("6.100", 1, 1);
    step("6.100", 4294967295U, 4294967296ULL);
    ok("COUNTER: negative offsets; COUNTER64: large ones");
    set("2.101", "4294967295");
    same("2.101", "4294967295");
    /* libmemcached has room for 19 digits of a cas unique: try many values. */
    char number[16];
    for (int n = 0; n < 50; n++) {
        sprintf(number, "%d", n * 1234567);
        cas("2.101", number);
    }
    cas("2.101", "17");
    rc = memcached_set(mc, "2.101", 5, "x", 1, 0, 0);
    check(rc != MEMCACHED_SUCCESS, "set of x into a COUNTER", rc);
    same("2.101", "17");
    ok("COUNTER: set get cas, and what it does not hold");

    for (int id = 0; id < 1500; id++) {
        end += sprintf(end, "%d\n", 300000 + id);
    }
    set("1.100", body);
    step("1.100", 5, 1500);
    step("1.100", (uint32_t)-2, 1500);
    same("2.300000", "3");
    same("2.301499", "3");
    ok("INDEX: fan-out to 1,500 counters, also negative");
    rc = memcached_append(mc, "1.100", 5, "900 4\n901", 9, 0, 0);
    check(rc == MEMCACHED_SUCCESS, "append", rc);
    step("1.100", 1, 1502);
    rc = memcached_prepend(mc, "1.100", 5, body, strlen(body), 0, 0);
    check(rc == MEMCACHED_SUCCESS, "prepend", rc);
    same("1.100", "900 4\n901 0");
    rc = memcached_prepend(mc, "1.100", 5, "5", 1, 0, 0);
    check(rc == MEMCACHED_NOTSTORED, "prepend of what is not there", rc);
    cas("1.100", "7 1");
    ok("INDEX: append prepend cas");

    set("3.100", "data");
    rc = memcached_increment(mc, "3.100", 5, 1, &value);
    check(rc != MEMCACHED_SUCCESS, "incr of DATA", rc);
    const char *keys[] = {"2.101", "1.100", "3.100", "2.4000000"};
    size_t lengths[] = {5, 5, 5, 9};
    rc = memcached_mget(mc, keys, lengths, 4);
    check(rc == MEMCACHED_SUCCESS, "mget", rc);
    int found = 0;
    memcached_result_st *result;
    while ((result = memcached_fetch_result(mc, NULL, &rc)) != NULL) {
        found++;
        memcached_result_free(result);
    }
    check(found == 3, "mget over types", rc);
    for (int n = 0; n < 3; n++) {
        rc = memcached_exist(mc, keys[n], lengths[n]);
        check(rc == MEMCACHED_SUCCESS, "exist", rc);
        rc = memcached_touch(mc, keys[n], lengths[n], 1000);
        check(rc == MEMCACHED_SUCCESS, "touch", rc);
        rc = memcached_delete(mc, keys[n], lengths[n], 0);
        check(rc == MEMCACHED_SUCCESS, "delete", rc);
        rc = memcached_exist(mc, keys[n], lengths[n]);
        check(rc == MEMCACHED_NOTFOUND, "exist", rc);
    }
    ok("mget exist touch delete over COUNTER, INDEX, DATA");
    free(body);
}

static void gives(const char *what, memcached_return_t rc, memcached_return_t expected) {
    check(rc == expected, what, rc);
}

static uint64_t unique_of(const char *key) {
    memcached_return_t rc;
    const char *keys[] = {key};
    size_t lengths[] = {strlen(key)};
    rc = memcached_mget_by_key(mc, "server", 6, keys, lengths, 1);
    check(rc == MEMCACHED_SUCCESS, "mget_by_key", rc);
    memcached_result_st *result = memcached_fetch_result(mc, NULL, &rc);
    check(result != NULL, "mget_by_key", rc);
    uint64_t unique = memcached_result_cas(result);
    memcached_result_free(result);
    while ((result = memcached_fetch_result(mc, NULL, &rc)) != NULL) memcached_result_free(result);
    return unique;
}

/* Each call that names the server by another key, and the plain ones that nothing else calls. */
static void by_key(const char *key, const char *number) {
    const char *by = "server";
    const size_t b = 6, k = strlen(key), n = strlen(number);
    const memcached_return_t success = MEMCACHED_SUCCESS;
    memcached_return_t rc;
    uint64_t value = 0;
    size_t length;
    uint32_t flags;
    memcached_delete(mc, key, k, 0);
    gives("replace", memcached_replace(mc, key, k, "x", 1, 0, 0), MEMCACHED_NOTSTORED);
    gives("add", memcached_add(mc, key, k, "1", 1, 0, 0), success);
    gives("add", memcached_add(mc, key, k, "x", 1, 0, 0), MEMCACHED_NOTSTORED);
    gives("replace", memcached_replace(mc, key, k, "2", 1, 0, 0), success);
    same(key, "2");
    gives("delete_by_key", memcached_delete_by_key(mc, by, b, key, k, 0), success);
    gives("exist_by_key", memcached_exist_by_key(mc, by, b, key, k), MEMCACHED_NOTFOUND);
    gives("replace_by_key", memcached_replace_by_key(mc, by, b, key, k, "x", 1, 0, 0),
          MEMCACHED_NOTSTORED);
    gives("add_by_key", memcached_add_by_key(mc, by, b, key, k, "value", 5, 0, 0), success);
    gives("add_by_key", memcached_add_by_key(mc, by, b, key, k, "x", 1, 0, 0), MEMCACHED_NOTSTORED);
    gives("exist_by_key", memcached_exist_by_key(mc, by, b, key, k), success);
    gives("append_by_key", memcached_append_by_key(mc, by, b, key, k, "!", 1, 0, 0), success);
    gives("prepend_by_key", memcached_prepend_by_key(mc, by, b, key, k, "a ", 2, 0, 0), success);
    char *found = memcached_get_by_key(mc, by, b, key, k, &length, &flags, &rc);
    check(rc == success && length == 8 && memcmp(found, "a value!", 8) == 0, "get_by_key", rc);
    free(found);
    memcached_behavior_set(mc, MEMCACHED_BEHAVIOR_SUPPORT_CAS, 1);
    uint64_t unique = unique_of(key);
    gives("cas_by_key", memcached_cas_by_key(mc, by, b, key, k, "b", 1, 0, 0, unique), success);
    gives("cas_by_key", memcached_cas_by_key(mc, by, b, key, k, "c", 1, 0, 0, unique),
          MEMCACHED_DATA_EXISTS);
    memcached_behavior_set(mc, MEMCACHED_BEHAVIOR_SUPPORT_CAS, 0);
    gives("replace_by_key", memcached_replace_by_key(mc, by, b, key, k, "d", 1, 0, 0), success);
    gives("touch_by_key", memcached_touch_by_key(mc, by, b, key, k, 1000), success);
    same(key, "d");
    gives("delete_by_key", memcached_delete_by_key(mc, by, b, key, k, 0), success);
    gives("delete_by_key", memcached_delete_by_key(mc, by, b, key, k, 0), MEMCACHED_NOTFOUND);
    gives("touch_by_key", memcached_touch_by_key(mc, by, b, key, k, 1000), MEMCACHED_NOTFOUND);
    gives("append_by_key", memcached_append_by_key(mc, by, b, key, k, "!", 1, 0, 0),
          MEMCACHED_NOTSTORED);
    gives("prepend_by_key", memcached_prepend_by_key(mc, by, b, key, k, "!", 1, 0, 0),
          MEMCACHED_NOTSTORED);
    gives("cas_by_key", memcached_cas_by_key(mc, by, b, key, k, "c", 1, 0, 0, unique),
          MEMCACHED_NOTFOUND);
    gives("set_by_key", memcached_set_by_key(mc, by, b, number, n, "5", 1, 0, 0), success);
    rc = memcached_increment_by_key(mc, by, b, number, n, 7, &value);
    check(rc == success && value == 12, "increment_by_key", rc);
    rc = memcached_decrement_by_key(mc, by, b, number, n, 2, &value);
    check(rc == success && value == 10, "decrement_by_key", rc);
    printf("ok each by_key of %s and %s, plain add and replace\n", key, number);
}

static int seen;

static memcached_return_t count_result(const memcached_st *by, memcached_result_st *result, void *what) {
    (void)by, (void)what;
    seen += memcached_result_length(result) == 5;
    return MEMCACHED_SUCCESS;
}

static memcached_return_t count_key(const memcached_st *by, const char *key, size_t length, void *what) {
    (void)by, (void)what;
    seen += length == 9 && memcmp(key, "c:many", 6) == 0;
    return MEMCACHED_SUCCESS;
}

static memcached_return_t count_stat(const memcached_instance_st *by, const char *key, size_t key_length,
                                     const char *value, size_t length, void *what) {
    (void)by, (void)what, (void)value;
    seen += key_length > 0 && length > 0;
    return MEMCACHED_SUCCESS;
}

/* What calls back, and what names the server by another key. */
static void many(int with_types) {
    memcached_return_t rc;
    char names[200][10];
    const char *keys[200];
    size_t lengths[200];
    memcached_execute_fn counters[] = {count_result};
    memcached_dump_fn dumpers[] = {count_key};
    for (int n = 0; n < 200; n++) {
        sprintf(names[n], "c:many%03d", n);
        keys[n] = names[n];
        lengths[n] = 9;
        set(keys[n], "12345");
    }
    rc = memcached_mget(mc, keys, lengths, 200);
    check(rc == MEMCACHED_SUCCESS, "mget", rc);
    seen = 0;
    rc = memcached_fetch_execute(mc, counters, NULL, 1);
    check(seen == 200, "fetch_execute", rc);
    rc = memcached_mget_by_key(mc, "server", 6, keys, lengths, 200);
    check(rc == MEMCACHED_SUCCESS, "mget_by_key", rc);
    seen = 0;
    rc = memcached_fetch_execute(mc, counters, NULL, 1);
    check(seen == 200, "mget_by_key", rc);
    seen = 0;
    rc = memcached_dump(mc, dumpers, NULL, 1);
    /* memcached dumps what has left the first of its queues only: perhaps nothing yet. */
    check(rc == MEMCACHED_SUCCESS && (seen == 200 || !with_types), "dump", rc);
    const char *topics[] = {NULL, "settings", "items", "slabs", "sizes"};
    for (int n = 0; n < 5; n++) {
        seen = 0;
        rc = memcached_stat_execute(mc, topics[n], count_stat, NULL);
        check(rc == MEMCACHED_SUCCESS && seen > 0, "stat_execute", rc);
    }
    /* These are of the binary protocol only: the library refuses them by itself. */
    uint64_t value;
    rc = memcached_mget_execute(mc, keys, lengths, 200, counters, NULL, 1);
    check(rc == MEMCACHED_NOT_SUPPORTED, "mget_execute", rc);
    rc = memcached_increment_with_initial(mc, "c:none", 6, 1, 5, 0, &value);
    check(rc == MEMCACHED_INVALID_ARGUMENTS, "increment_with_initial", rc);
    rc = memcached_decrement_with_initial(mc, "c:none", 6, 1, 5, 0, &value);
    check(rc == MEMCACHED_INVALID_ARGUMENTS, "decrement_with_initial", rc);
    memcached_stat_st *stats = memcached_stat(mc, NULL, &rc);
    check(rc == MEMCACHED_SUCCESS, "stat", rc);
    char *items = memcached_stat_get_value(mc, stats, "curr_items", &rc);
    check(rc == MEMCACHED_SUCCESS && atoi(items) >= 200, "curr_items of stat", rc);
    free(items);
    memcached_stat_free(NULL, stats);
    rc = memcached_verbosity(mc, 0);
    check(rc == MEMCACHED_SUCCESS, "verbosity", rc);
    memcached_quit(mc);
    same(keys[7], "12345");
    ok("mget, fetch_execute of 200 keys, dump, stat, stat_execute, verbosity, quit");
    rc = memcached_flush(mc, 3600);
    check(rc == MEMCACHED_SUCCESS, "flush in an hour", rc);
    same(keys[7], "12345");
    rc = memcached_flush(mc, 0);
    check(rc == MEMCACHED_SUCCESS, "flush", rc);
    same(keys[7], NULL);
    ok("flush");
}

static void noreply(int with_types) {
    memcached_return_t rc;
    char key[32];
    memcached_behavior_set(mc, MEMCACHED_BEHAVIOR_NOREPLY, 1);
    memcached_behavior_set(mc, MEMCACHED_BEHAVIOR_BUFFER_REQUESTS, 1);
    for (int n = 0; n < 2000; n++) {
        sprintf(key, with_types ? "3.%d" : "c:%d", 5000 + n);
        memcached_set(mc, key, strlen(key), key, strlen(key), 0, 0);
        if (with_types) memcached_set(mc, "2.102", 5, "x", 1, 0, 0);
    }
    rc = memcached_flush_buffers(mc);
    check(rc == MEMCACHED_SUCCESS, "flush_buffers", rc);
    /* On the same connection: switching buffering off opens another one. */
    same(key, key);
    memcached_behavior_set(mc, MEMCACHED_BEHAVIOR_NOREPLY, 0);
    memcached_behavior_set(mc, MEMCACHED_BEHAVIOR_BUFFER_REQUESTS, 0);
    ok("2,000 buffered sets without replies, then in step");
}

int main(int argc, char **argv) {
    if (argc != 4) return 2;
    setbuf(stdout, NULL);
    mc = memcached_create(NULL);
    memcached_server_add(mc, argv[1], (in_port_t)atoi(argv[2]));
    memcached_return_t rc = memcached_version(mc);
    check(rc == MEMCACHED_SUCCESS, "version", rc);
    ok("version");
    named();
    if (strcmp(argv[3], "1") == 0) typed();
    noreply(strcmp(argv[3], "1") == 0);
    by_key("c:by", "c:by:number");
    if (strcmp(argv[3], "1") == 0) by_key("3.101", "2.103");
    many(strcmp(argv[3], "1") == 0);
    memcached_free(mc);
    return 0;
}
