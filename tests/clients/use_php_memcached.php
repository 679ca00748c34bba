<?php
// php-memcached, over libmemcached.

$mc = new Memcached();
$mc->setOption(Memcached::OPT_TCP_NODELAY, true);
$mc->addServer(getenv('HOST'), (int) getenv('PORT'));

function ok(string $what): void
{
    echo "ok $what\n";
}

function same(string $what, mixed $found, mixed $expected): void
{
    global $mc;
    if ($found === $expected) {
        return;
    }
    $show = fn($value) => substr(var_export($value, true), 0, 300);
    echo "not ok $what: expected {$show($expected)}, found {$show($found)}; ",
        $mc->getResultCode(), ' ', $mc->getLastErrorMessage(), "\n";
    exit(1);
}

// The call fails, and for this reason.
function fails(string $what, mixed $found, int $code): void
{
    global $mc;
    same($what, $found, false);
    same("$what: the code", $mc->getResultCode(), $code);
}

function cas(string $key, mixed $value): void
{
    global $mc;
    $unique = $mc->get($key, null, Memcached::GET_EXTENDED)['cas'];
    same('cas', $mc->cas($unique, $key, $value), true);
    fails('cas with an old unique', $mc->cas($unique, $key, $value), Memcached::RES_DATA_EXISTS);
    same('get after cas', (string) $mc->get($key), (string) $value);
}

same('set', $mc->set('php:1', 'value', 1000), true);
same('get', $mc->get('php:1'), 'value');
fails('add', $mc->add('php:1', 'x'), Memcached::RES_NOTSTORED);
same('replace', $mc->replace('php:1', 'v2'), true);
fails('replace', $mc->replace('php:0', 'v2'), Memcached::RES_NOTSTORED);
$mc->setOption(Memcached::OPT_COMPRESSION, false);
same('append', $mc->append('php:1', '!'), true);
same('prepend', $mc->prepend('php:1', 'a '), true);
same('get', $mc->get('php:1'), 'a v2!');
cas('php:1', 'v3');
same('touch', $mc->touch('php:1', 1000), true);
same('delete', $mc->delete('php:1'), true);
fails('delete', $mc->delete('php:1'), Memcached::RES_NOTFOUND);
fails('get', $mc->get('php:1'), Memcached::RES_NOTFOUND);
$mc->set('php:n', 5);
same('increment', $mc->increment('php:n', 3), 8);
same('decrement', $mc->decrement('php:n', 2), 6);
same('a number comes back as one', $mc->get('php:n'), 6);
$mc->set('php:list', [1, ['a' => 2]]);
same('a serialized value', $mc->get('php:list'), [1, ['a' => 2]]);
ok('named keys: set get add replace append prepend cas touch delete increment decrement');

$values = [];
for ($n = 0; $n < 500; $n++) {
    $values["php:$n"] = "value $n";
}
$keys = array_keys($values);
same('setMulti', $mc->setMulti($values, 1000), true);
same('getMulti', $mc->getMulti($keys, Memcached::GET_PRESERVE_ORDER), $values);
same('getDelayed', $mc->getDelayed($keys, true), true);
same('fetch', isset($mc->fetch()['cas']), true);
same('fetchAll', count($mc->fetchAll()), 499);
same('deleteMulti', array_unique(array_values($mc->deleteMulti($keys))), [true]);
same('get with a callback', $mc->get('php:made', function ($mc, $key, &$value) {
    $value = "made $key";
    return true;
}), 'made php:made');
same('what the callback stored', $mc->get('php:made'), 'made php:made');
ok('setMulti getMulti getDelayed fetch fetchAll deleteMulti, a callback');

// The first argument names the server that has the key.
function by_key(string $by, string $key, string $number): void
{
    global $mc;
    same('setByKey', $mc->setByKey($by, $key, 'value'), true);
    same('getByKey', $mc->getByKey($by, $key), 'value');
    fails('addByKey', $mc->addByKey($by, $key, 'x'), Memcached::RES_NOTSTORED);
    same('replaceByKey', $mc->replaceByKey($by, $key, 'v2'), true);
    same('appendByKey', $mc->appendByKey($by, $key, '!'), true);
    same('prependByKey', $mc->prependByKey($by, $key, 'a '), true);
    $found = $mc->getByKey($by, $key, null, Memcached::GET_EXTENDED);
    same('getByKey', $found['value'], 'a v2!');
    same('casByKey', $mc->casByKey($found['cas'], $by, $key, 'v3'), true);
    fails('casByKey', $mc->casByKey($found['cas'], $by, $key, 'v4'), Memcached::RES_DATA_EXISTS);
    same('touchByKey', $mc->touchByKey($by, $key, 1000), true);
    same('setMultiByKey', $mc->setMultiByKey($by, [$number => 5, $key => 'v5'], 1000), true);
    same('incrementByKey', $mc->incrementByKey($by, $number, 3), 8);
    same('decrementByKey', $mc->decrementByKey($by, $number, 2), 6);
    $found = $mc->getMultiByKey($by, [$key, $number], Memcached::GET_PRESERVE_ORDER);
    same('getMultiByKey', [$found[$key], (int) $found[$number]], ['v5', 6]);
    same('getDelayedByKey', $mc->getDelayedByKey($by, [$key, $number], true), true);
    same('fetchAll', count($mc->fetchAll()), 2);
    same('deleteByKey', $mc->deleteByKey($by, $key), true);
    fails('getByKey', $mc->getByKey($by, $key), Memcached::RES_NOTFOUND);
    fails('touchByKey', $mc->touchByKey($by, $key, 1000), Memcached::RES_NOTFOUND);
    same('addByKey', $mc->addByKey($by, $key, 'v6'), true);
    same('deleteMultiByKey', $mc->deleteMultiByKey($by, [$key, $number]), [$key => true, $number => true]);
    ok("each ByKey of $key and $number");
}

same('getServerByKey', $mc->getServerByKey('server')['port'], (int) getenv('PORT'));
by_key('server', 'php:by', 'php:by:n');

$mc->setOption(Memcached::OPT_NO_BLOCK, true);
$mc->setOption(Memcached::OPT_BUFFER_WRITES, true);
$mc->setOption(Memcached::OPT_NOREPLY, true);
for ($n = 0; $n < 500; $n++) {
    $mc->set('php:quiet', "$n");
}
same('flushBuffers', $mc->flushBuffers(), true);
$mc->setOption(Memcached::OPT_NOREPLY, false);
$mc->setOption(Memcached::OPT_BUFFER_WRITES, false);
$mc->setOption(Memcached::OPT_NO_BLOCK, false);
same('in step', $mc->set('php:step', '1') && $mc->get('php:step') === '1', true);
ok('500 buffered sets without a reply');

$server = getenv('SERVER');
same('getVersion', substr($mc->getVersion()[$server], 0, 2), '1.');
$stats = $mc->getStats()[$server];
same('getStats', $stats['curr_items'] > 0 && $stats['pointer_size'] == 64, true);
same('getStats settings', isset($mc->getStats('settings')[$server]['maxconns']), true);
$items = $mc->getStats('items')[$server];
$numbers = array_filter($items, fn($name) => str_ends_with($name, ':number'), ARRAY_FILTER_USE_KEY);
same('getStats items', count($numbers) > 0 && min($numbers) > 0, true);
same('getStats slabs', $mc->getStats('slabs')[$server]['active_slabs'] > 0, true);
ok('getVersion getStats');
// memcached dumps what has left the first of its queues only: perhaps nothing yet.
$all = $mc->getAllKeys();
if (getenv('TYPED') === '1') {
    same('getAllKeys', array_diff(['php:made', 'php:step', 'php:list'], $all), []);
    same('as many as there are', count($all), $mc->getStats()[$server]['curr_items']);
    ok('getAllKeys');
}

if (getenv('TYPED') === '1') {
    $mc->delete('2.1000');
    same('increment of a missing COUNTER', $mc->increment('2.1000', 5), 5);
    same('decrement', $mc->decrement('2.1000', 2), 3);
    same('a step of -1 in 32 bits', $mc->increment('2.1000', 4294967295), 2);
    same('set', $mc->set('2.1001', 41), true);
    same('a number comes back as one', $mc->get('2.1001'), 41);
    cas('2.1001', 7);
    same('x in a COUNTER', $mc->set('2.1001', 'x'), false);
    same('the old value', $mc->get('2.1001'), 7);
    ok('COUNTER: increment decrement set get cas');

    $body = implode("\n", range(600000, 601199));
    same('set of an INDEX', $mc->set('1.1000', $body), true);
    same('fan-out', $mc->increment('1.1000', 5), 1200);
    same('fan-out down', $mc->decrement('1.1000', 2), 1200);
    $counters = $mc->getMulti(array_map(fn($id) => "2.$id", range(600000, 601199)));
    same('how many', count($counters), 1200);
    same('all counters are equal', count(array_unique($counters)), 1);
    same('append', $mc->append('1.1000', '5 6'), true);
    same('prepend', $mc->prepend('1.1000', $body), true);
    fails('prepend', $mc->prepend('1.1000', '77'), Memcached::RES_NOTSTORED);
    same('members', $mc->get('1.1000'), '5 6');
    cas('1.1000', '7 8');
    ok('INDEX: fan-out to 1,200 counters, append, prepend, cas');

    $mc->set('3.1000', 'data');
    $keys = ['2.1001', '1.1000', '3.1000', '3.1099'];
    $found = $mc->getMulti($keys, Memcached::GET_PRESERVE_ORDER);
    $found['2.1001'] = (int) $found['2.1001'];
    same('getMulti', $found, array_combine($keys, [7, '7 8', 'data', null]));
    foreach (array_slice($keys, 0, 3) as $key) {
        same('touch', $mc->touch($key, 1000), true);
        same('delete', $mc->delete($key), true);
        fails('get', $mc->get($key), Memcached::RES_NOTFOUND);
    }
    ok('getMulti touch delete over COUNTER, INDEX, DATA');
}
if (getenv('TYPED') === '1') {
    by_key('server', '3.1001', '2.1002');
}
same('flush in an hour', $mc->flush(3600), true);
same('get', $mc->get('php:step'), '1');
same('flush', $mc->flush(), true);
fails('get after flush', $mc->get('php:step'), Memcached::RES_NOTFOUND);
ok('flush, with a delay');
same('quit', $mc->quit(), true);
same('set after quit', $mc->set('php:step', '2'), true);
same('isPersistent', $mc->isPersistent(), false);
same('resetServerList', $mc->resetServerList(), true);
same('addServers', $mc->addServers([[getenv('HOST'), (int) getenv('PORT')]]), true);
same('getServerList', count($mc->getServerList()), 1);
same('get', $mc->get('php:step'), '2');
ok('quit resetServerList addServers');

// A verb that came with a new version would be missing here.
$called = 'add addByKey addServer addServers append appendByKey cas casByKey decrement decrementByKey '
    . 'delete deleteByKey deleteMulti deleteMultiByKey fetch fetchAll flush flushBuffers get getAllKeys '
    . 'getByKey getDelayed getDelayedByKey getMulti getMultiByKey getServerByKey getServerList getStats '
    . 'getVersion increment incrementByKey isPersistent prepend prependByKey quit replace replaceByKey '
    . 'resetServerList set setByKey setMulti setMultiByKey setOption touch touchByKey '
    . 'getLastErrorMessage getResultCode';
// They send nothing, or belong to the binary protocol.
$local = '__construct checkKey getLastDisconnectedServer getLastErrorCode getLastErrorErrno getOption '
    . 'getResultMessage isPristine setBucket setEncodingKey setOptions setSaslAuthData';
$known = explode(' ', "$called $local");
same('methods that this script does not know', array_diff(get_class_methods('Memcached'), $known), []);

