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
same('setByKey', $mc->setByKey('server', 'php:by', 'value'), true);
same('getByKey', $mc->getByKey('server', 'php:by'), 'value');
same('get with a callback', $mc->get('php:made', function ($mc, $key, &$value) {
    $value = "made $key";
    return true;
}), 'made php:made');
same('what the callback stored', $mc->get('php:made'), 'made php:made');
ok('setMulti getMulti getDelayed fetch fetchAll deleteMulti byKey, a callback');

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
ok('getVersion getStats');

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
same('quit', $mc->quit(), true);
