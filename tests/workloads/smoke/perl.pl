# Perl 5: fork, pipes, signals, sockets, threads, regular expressions.
use strict; use warnings;
use Digest::SHA qw(sha256_hex); use File::Temp qw(tempdir); use IO::Select; use IO::Socket::INET; use IPC::Open3;
use POSIX qw(:sys_wait_h setlocale LC_ALL dup2); use Socket; use Storable qw(dclone); use Time::HiRes qw(alarm sleep);
use threads; use threads::shared;
sub check { my ($ok, $what) = @_; die "failed: $what: $!\n" unless $ok }

my $text = join ' ', map { "word$_" } 1 .. 5000;
check((() = $text =~ /\bword(\d*7)\b/g) == 500, 'regular expression');
check('2026-11-23' =~ /^(?<y>\d{4})-(?<m>\d\d)/ && $+{y} == 2026, 'named groups');
check(sha256_hex('abc') =~ /^ba7816bf/, 'digest');

pipe(my $r, my $w) or die;
my $pid = fork // die;
if (!$pid) { close $r; print $w "from child\n"; close $w; POSIX::_exit(5) }
close $w; check(<$r> eq "from child\n", 'pipe'); waitpid $pid, 0; check($? >> 8 == 5, 'exit code');

my @kids = map { my $n = $_; my $p = fork // die; POSIX::_exit($n) unless $p; $p } 1 .. 20;
my $sum = 0; for (@kids) { waitpid $_, 0; $sum += $? >> 8 } check($sum == 210, 'twenty children');

check(`echo hello | tr a-z A-Z` eq "HELLO\n", 'backticks');
my $p3 = open3(my $in, my $out, undef, 'sort', '-n'); print $in "3\n1\n2\n"; close $in;
check(join('', <$out>) eq "1\n2\n3\n", 'open3'); waitpid $p3, 0;

my $rang = 0; { local $SIG{ALRM} = sub { $rang = 1 }; alarm 0.1; select undef, undef, undef, 2 } check($rang, 'alarm');
{ local $SIG{USR1} = sub { $rang = 2 }; kill USR1 => $$; check($rang == 2, 'signal') }

my $s = IO::Socket::INET->new(Listen => 5, LocalAddr => '127.0.0.1') or die;
if (!($pid = fork)) { my $c = $s->accept; print $c uc <$c>; POSIX::_exit(0) }
my $c = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $s->sockport) or die;
print $c "shout\n"; check(<$c> eq "SHOUT\n", 'socket'); waitpid $pid, 0;
socketpair(my $a, my $b, AF_UNIX, SOCK_STREAM, PF_UNSPEC) or die;

my $n :shared = 0;
$_->join for map { threads->create(sub { for (1 .. 200) { lock $n; $n++ } }) } 1 .. 8; check($n == 1600, 'threads');

my $d = tempdir(CLEANUP => 1);
open my $f, '+>', "$d/x" or die; flock $f, 2 or die; print $f $text; $f->sync; seek $f, 0, 0; check(<$f> eq $text, 'file');
rename "$d/x", "$d/y" or die; utime 1, 2, "$d/y" or die; check((stat "$d/y")[9] == 2, 'times');
shmwrite(my $id = shmget(0, 4096, 01600) // die("shmget: $!"), 'x', 0, 1) or die; shmctl $id, 0, 0 or die;
print "smoke-ok\n";
