# Perl's Cache::Memcached::Fast, a client in C: every method, noreply too.
use strict;
use warnings;
use Cache::Memcached::Fast;

$| = 1;
my $client = Cache::Memcached::Fast->new(
    {servers => [$ENV{SERVER}], io_timeout => 10, connect_timeout => 10});

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

sub cas {
    my ($key, $value) = @_;
    my $unique = $client->gets($key)->[0];
    yes('cas', $client->cas($key, $unique, $value));
    no_('cas with an old unique', $client->cas($key, $unique, $value));
    same('get after cas', $client->get($key), $value);
}

yes('set', $client->set('pf:1', 'value'));
same('get', $client->get('pf:1'), 'value');
no_('add', $client->add('pf:1', 'x'));
yes('replace', $client->replace('pf:1', 'v2'));
no_('replace of what is not there', $client->replace('pf:0', 'v2'));
yes('append', $client->append('pf:1', '!'));
yes('prepend', $client->prepend('pf:1', 'a '));
same('get', $client->get('pf:1'), 'a v2!');
cas('pf:1', 'v3');
yes('touch', $client->touch('pf:1', 1000));
no_('touch of what is not there', $client->touch('pf:0', 1000));
same('gat', $client->gat(1000, 'pf:1'), 'v3');
same('gats', $client->gats(1000, 'pf:1')->[1], 'v3');
same('gat of what is not there', $client->gat(1000, 'pf:0'), undef);
yes('delete', $client->delete('pf:1'));
no_('delete', $client->delete('pf:1'));
same('get', $client->get('pf:1'), undef);
$client->set('pf:n', 5);
same('incr', $client->incr('pf:n', 3), 8);
same('decr', $client->decr('pf:n', 2), 6);
no_('incr of what is not there', $client->incr('pf:0', 3));
ok('named keys: set get add replace append prepend gets cas touch gat gats delete incr decr');

my @keys = map {"pf:$_"} 1 .. 300;
my $stored = $client->set_multi(map { [$_, "value $_", 1000] } @keys);
same('set_multi', scalar(grep {$_} values %$stored), 300);
my $found = $client->get_multi(@keys);
same('get_multi', scalar(grep { $found->{$_} eq "value $_" } @keys), 300);
my $uniques = $client->gets_multi(@keys);
my $changed = $client->cas_multi(map { [$_, $uniques->{$_}[0], 7] } @keys);
same('cas_multi', scalar(grep {$_} values %$changed), 300);
same('gat_multi', scalar(keys %{$client->gat_multi(1000, @keys)}), 300);
same('gats_multi', scalar(keys %{$client->gats_multi(1000, @keys)}), 300);
for my $call (qw(add_multi append_multi prepend_multi replace_multi)) {
    my $results = $client->$call(map { [$_, 1] } @keys);
    same($call, scalar(grep {$_} values %$results), $call eq 'add_multi' ? 0 : 300);
}
my $steps = $client->incr_multi(map { [$_, 112] } @keys);
same('incr_multi', scalar(grep { $_ == 113 } values %$steps), 300);
$steps = $client->decr_multi([$keys[0], 13], [$keys[1]]);
same('decr_multi', join(',', map { $steps->{$_} } @keys[0, 1]), '100,112');
my $touched = $client->touch_multi(map { [$_, 1000] } @keys);
same('touch_multi', scalar(grep {$_} values %$touched), 300);
same('delete_multi', scalar(grep {$_} values %{$client->delete_multi(@keys)}), 300);
$client->set('pf:ref', {a => [1, 2]});
same('a frozen value', $client->get('pf:ref')->{a}[1], 2);
ok('300 keys at once: set add replace append prepend cas get gets gat gats incr decr touch delete');

# In void context the client sends noreply.
for my $n (1 .. 500) {
    $client->set('pf:quiet', $n);
    $client->incr('pf:quiet', 1);
    $client->delete('pf:nothing');
}
$client->nowait_push;
same('get after 1,500 commands without a reply', $client->get('pf:quiet'), 501);
ok('noreply');
# `remove` is `delete` by an older name.
$client->set('pf:1', 1);
same('remove', $client->remove('pf:1'), 1);
same('namespace', $client->namespace('pf:'), '');
same('get in a name space', $client->get('quiet'), 501);
$client->namespace('');
same('server_versions', substr($client->server_versions->{$ENV{SERVER}}, 0, 2), '1.');
ok('remove namespace server_versions');

if ($ENV{TYPED}) {
    $client->delete('2.900');
    same('incr of a missing COUNTER', $client->incr('2.900', 5), 5);
    same('decr', $client->decr('2.900', 100), '0E0');
    yes('set', $client->set('2.901', 41));
    same('a step of -1 in 32 bits', $client->incr('2.901', 4294967295), 40);
    cas('2.901', 7);
    no_('x in a COUNTER', $client->set('2.901', 'x'));
    same('the old value', $client->get('2.901'), 7);
    $steps = $client->incr_multi(map {"2.$_"} 910 .. 959);
    same('incr_multi', scalar(grep {$_} values %$steps), 50);
    ok('COUNTER: incr decr set get cas incr_multi');

    my $body = join "\n", map {600000 + $_} 0 .. 1199;
    yes('set of an INDEX', $client->set('1.900', $body));
    same('fan-out', $client->incr('1.900', 5), 1200);
    same('fan-out down', $client->decr('1.900', 2), 1200);
    my $counters = $client->get_multi(map { '2.' . (600000 + $_) } 0 .. 1199);
    same('how many', scalar(keys %$counters), 1200);
    my %values = map { $_ => 1 } values %$counters;
    same('all counters are equal', scalar(keys %values), 1);
    yes('append', $client->append('1.900', '5 6'));
    yes('prepend', $client->prepend('1.900', $body));
    no_('prepend of what is not there', $client->prepend('1.900', '77'));
    same('members', $client->get('1.900'), '5 6');
    cas('1.900', '7 8');
    ok('INDEX: fan-out to 1,200 counters, append, prepend, cas');

    $client->set('3.900', 'data');
    my $values = $client->gat_multi(1000, '2.901', '1.900', '3.900', '3.999');
    same('gat_multi', join(',', map {"$_=$values->{$_}"} sort keys %$values),
        '1.900=7 8,2.901=7,3.900=data');
    for my $key ('2.901', '1.900', '3.900') {
        yes('touch', $client->touch($key, 1000));
        yes('delete', $client->delete($key));
        same('get', $client->get($key), undef);
    }
    ok('gat_multi, touch and delete over COUNTER, INDEX, DATA');
    for my $n (1 .. 500) {
        $client->set('2.902', 'x');
        $client->set('2.902', $n);
    }
    $client->nowait_push;
    same('errors under noreply give no line', $client->get('2.902'), 500);
    ok('noreply with errors');
}
$client->set('pf:1', 1);
same('flush_all', $client->flush_all->{$ENV{SERVER}}, 1);
same('get after flush_all', $client->get('pf:1'), undef);
$client->set('pf:1', 1);
$client->flush_all;
$client->nowait_push;
same('get after flush_all without a reply', $client->get('pf:1'), undef);
$client->disconnect_all;
same('get after disconnect_all', $client->set('pf:1', 2) && $client->get('pf:1'), 2);
ok('flush_all, with a reply and without, disconnect_all');
my %known = map { $_ => 1 } qw(add add_multi append append_multi cas cas_multi decr decr_multi delete
    delete_multi disconnect_all flush_all gat gat_multi gats gats_multi get get_multi gets gets_multi
    incr incr_multi namespace new nowait_push prepend prepend_multi remove replace replace_multi
    server_versions set set_multi touch touch_multi enable_compress);
# What the module and what it imports have for themselves.
my %own = map { $_ => 1 } qw(CLONE DESTROY VERSION bootstrap retrieve store);
my @new = grep { !/^_/ && !$known{$_} && !$own{$_} && Cache::Memcached::Fast->can($_) }
    sort keys %Cache::Memcached::Fast::;
same('methods that this script does not know', "@new", '');

