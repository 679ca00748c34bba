// gomemcache: it always reads with gets, and its deltas are unsigned 64-bit numbers.
package main

import (
	"fmt"
	"math"
	"os"
	"strings"
	"time"

	"github.com/bradfitz/gomemcache/memcache"
)

var client *memcache.Client

func ok(what string) { fmt.Println("ok", what) }

func same(what string, found, expected interface{}) {
	if fmt.Sprint(found) != fmt.Sprint(expected) {
		fmt.Printf("not ok %s: expected %.300v, found %.300v\n", what, expected, found)
		os.Exit(1)
	}
}

func item(key, value string) *memcache.Item {
	return &memcache.Item{Key: key, Value: []byte(value)}
}

func get(key string) string {
	found, err := client.Get(key)
	if err != nil {
		return err.Error()
	}
	return string(found.Value)
}

func step(what string, by func(string, uint64) (uint64, error), key string, delta, expected uint64) {
	value, err := by(key, delta)
	same(what, err, nil)
	same(what, value, expected)
}

func cas(key, value string) {
	first, err := client.Get(key)
	same("gets", err, nil)
	second := *first
	first.Value = []byte(value)
	same("cas", client.CompareAndSwap(first), nil)
	same("cas with an old unique", client.CompareAndSwap(&second), memcache.ErrCASConflict)
	same("get after cas", get(key), value)
	same("delete", client.Delete(key), nil)
	same("cas of what is not there", client.CompareAndSwap(&second), memcache.ErrCacheMiss)
	same("set", client.Set(item(key, value)), nil)
}

func many(keys []string) map[string]*memcache.Item {
	found, err := client.GetMulti(keys)
	same("GetMulti", err, nil)
	return found
}

func named() {
	missing := memcache.ErrCacheMiss
	flagged := &memcache.Item{Key: "go:1", Value: []byte("value"), Flags: 7, Expiration: 1000}
	same("set", client.Set(flagged), nil)
	found, err := client.Get("go:1")
	same("get", err, nil)
	same("flags", found.Flags, 7)
	same("value", get("go:1"), "value")
	same("add", client.Add(item("go:1", "x")), memcache.ErrNotStored)
	same("replace", client.Replace(item("go:1", "v2")), nil)
	same("replace of what is not there", client.Replace(item("go:0", "x")), memcache.ErrNotStored)
	cas("go:1", "v3")
	same("touch", client.Touch("go:1", 1000), nil)
	same("touch of what is not there", client.Touch("go:0", 1000), missing)
	same("delete", client.Delete("go:1"), nil)
	same("delete", client.Delete("go:1"), missing)
	same("get of what is not there", get("go:1"), missing.Error())
	client.Set(item("go:n", "5"))
	step("increment", client.Increment, "go:n", 3, 8)
	step("decrement", client.Decrement, "go:n", 2, 6)
	step("a step of 64 bits", client.Increment, "go:n", math.MaxUint64-6, math.MaxUint64)
	step("past 64 bits", client.Increment, "go:n", 3, 2)
	_, err = client.Increment("go:0", 1)
	same("increment of what is not there", err, missing)
	keys := []string{}
	for n := 0; n < 300; n++ {
		keys = append(keys, fmt.Sprintf("go:%d", n))
		client.Set(item(keys[n], keys[n]))
	}
	same("GetMulti", len(many(keys)), 300)
	ok("named keys: set get GetMulti add replace cas touch delete increment decrement")
}

func typed() {
	client.Delete("2.1200")
	step("increment of a missing COUNTER", client.Increment, "2.1200", 5, 5)
	step("a step of -1 in 32 bits", client.Increment, "2.1200", math.MaxUint32, 4)
	step("not below 0", client.Decrement, "2.1200", 100, 0)
	_, err := client.Increment("2.1200", math.MaxUint64)
	same("a step of 64 bits to a COUNTER fails", err != nil, true)
	client.Set(item("6.1200", "5"))
	step("a step of 64 bits", client.Increment, "6.1200", math.MaxUint64-5, math.MaxUint64)
	same("set", client.Set(item("2.1201", "41")), nil)
	cas("2.1201", "7")
	same("x in a COUNTER fails", client.Set(item("2.1201", "x")) != nil, true)
	same("the old value", get("2.1201"), "7")
	ok("COUNTER and COUNTER64: increment decrement set get cas")

	members, keys := []string{}, []string{}
	for id := 600000; id < 601200; id++ {
		members = append(members, fmt.Sprint(id))
		keys = append(keys, fmt.Sprintf("2.%d", id))
	}
	same("set of an INDEX", client.Set(item("1.1200", strings.Join(members, "\n"))), nil)
	step("fan-out", client.Increment, "1.1200", 5, 1200)
	step("fan-out down", client.Decrement, "1.1200", 2, 1200)
	counters := many(keys)
	same("how many", len(counters), 1200)
	for _, counter := range counters {
		same("all counters are equal", string(counter.Value), string(counters[keys[0]].Value))
	}
	cas("1.1200", "7 8")
	ok("INDEX: fan-out to 1,200 counters, cas")

	client.Set(item("3.1200", "data"))
	keys = []string{"2.1201", "1.1200", "3.1200"}
	found := many(append(keys, "3.1299"))
	same("GetMulti", len(found), 3)
	for n, expected := range []string{"7", "7 8", "data"} {
		same(keys[n], string(found[keys[n]].Value), expected)
		same("touch", client.Touch(keys[n], 1000), nil)
		same("delete", client.Delete(keys[n]), nil)
		same("get", get(keys[n]), memcache.ErrCacheMiss.Error())
	}
	ok("GetMulti touch delete over COUNTER, INDEX, DATA")
}

func main() {
	client = memcache.New(os.Getenv("SERVER"))
	client.Timeout = 10 * time.Second
	named()
	if os.Getenv("TYPED") == "1" {
		typed()
	}
	for _, flush := range []func() error{client.FlushAll, client.DeleteAll} {
		same("set", client.Set(item("go:1", "v")), nil)
		same("flush", flush(), nil)
		same("get after it", get("go:1"), memcache.ErrCacheMiss.Error())
	}
	ok("FlushAll DeleteAll")
}
