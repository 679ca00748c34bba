# Perl's Cache::Memcached. It has no cas and no touch. Its stats_reset sends a line without an end, which
# no server answers.
use strict;
use warnings;
use Cache::Memcached;

$| = 1;
my $client = Cache::Memcached->new({servers => [$ENV{SERVER}]});

sub ok { print "ok @_\n" }

sub same {
    my ($what, $found, $expected) = @_;
    my $show = sub { defined $_[0] ? "'" . substr($_[0], 0, 300) . "'" : 'nothing' };
    return if $show->($found) eq $show->($expected);
    print "not ok $what: expected ", $show->($expected), ", found ", $show->($found), "\n";
    exit 1;
}

sub yes { same($_[0], $_[1] ? 1 : 0, 1) }
sub no_ { same($_[0], $_[1] ? 1 : 0, 0) }

yes('set', $client->set('pl:1', 'value'));
same('get', $client->get('pl:1'), 'value');
no_('add', $client->add('pl:1', 'x'));
yes('replace', $client->replace('pl:1', 'v2'));
yes('append', $client->append('pl:1', '!'));
yes('prepend', $client->prepend('pl:1', 'a '));
same('get', $client->get('pl:1'), 'a v2!');
yes('delete', $client->delete('pl:1'));
same('get', $client->get('pl:1'), undef);
$client->set('pl:n', 5);
same('incr', $client->incr('pl:n', 3), 8);
same('decr', $client->decr('pl:n', 2), 6);
$client->set("pl:$_", "value $_") for 1 .. 300;
my $many = $client->get_multi(map {"pl:$_"} 1 .. 300);
same('get_multi', scalar(keys %$many), 300);
$client->set('pl:ref', {a => [1, 2]});
same('a frozen value', $client->get('pl:ref')->{a}[1], 2);
ok('named keys: set get add replace append prepend delete incr decr get_multi');

yes('stats', $client->stats(['misc'])->{total}{cmd_get} > 0);
my $topics = $client->stats(['items', 'slabs', 'sizes'])->{hosts}{$ENV{SERVER}};
yes('stats items', $topics->{items} =~ /^STAT items:\d+:number [1-9]/m);
yes('stats slabs', $topics->{slabs} =~ /^STAT active_slabs [1-9]/m);
yes('stats sizes', %{$topics->{sizes}} > 0);
ok('stats, items, slabs, sizes');
same('remove', $client->remove('pl:7'), 1);
same('get', $client->get('pl:7'), undef);
$client->disconnect_all;
same('get after disconnect_all', $client->get('pl:8'), 'value 8');
ok('remove disconnect_all');

if ($ENV{TYPED}) {
    $client->delete('2.500');
    same('incr of a missing COUNTER', $client->incr('2.500', 5), 5);
    same('a negative delta', $client->incr('2.500', -2), 3);
    same('a negative decr', $client->decr('2.500', -4), 7);
    yes('set', $client->set('2.501', 41));
    same('get', $client->get('2.501'), 41);
    no_('x in a COUNTER', $client->set('2.501', 'x'));
    same('the old value', $client->get('2.501'), 41);
    ok('COUNTER: incr decr set get, negative deltas');

    my $body = join "\n", map {600000 + $_} 0 .. 1199;
    yes('set of an INDEX', $client->set('1.500', $body));
    same('fan-out', $client->incr('1.500', 5), 1200);
    same('fan-out with a negative delta', $client->incr('1.500', -2), 1200);
    my $counters = $client->get_multi(map {'2.' . (600000 + $_)} 0 .. 1199);
    same('how many', scalar(keys %$counters), 1200);
    my %values = map { $_ => 1 } values %$counters;
    same('all counters are equal', scalar(keys %values), 1);
    yes('append', $client->append('1.500', '5 6'));
    yes('prepend', $client->prepend('1.500', $body));
    same('members', $client->get('1.500'), '5 6');
    ok('INDEX: fan-out to 1,200 counters, negative too, append, prepend');

    $client->set('3.500', 'data');
    my $found = $client->get_multi('2.501', '1.500', '3.500', '3.599');
    same('get_multi', join(',', map {"$_=$found->{$_}"} sort keys %$found),
        '1.500=5 6,2.501=41,3.500=data');
    for my $key ('2.501', '1.500', '3.500') {
        yes('delete', $client->delete($key));
        same('get', $client->get($key), undef);
    }
    ok('get_multi and delete over COUNTER, INDEX, DATA');
}

same('flush_all', $client->flush_all, 1);
same('get after flush_all', $client->get('pl:8'), undef);
ok('flush_all');
