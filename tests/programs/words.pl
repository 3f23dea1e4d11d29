# Hashes, arrays, sorting, regular expressions, strings that grow, and a child through a pipe.
use strict;
use warnings;

my $state = 12345;
sub number { $state = ($state * 1103515245 + 12345) % 2147483648; return ($state >> 8) % $_[0]; }

my (%count, @words);
for (1 .. 120000) {
    my $word = join '', map { chr(97 + number(26)) } 1 .. 2 + number(3);
    $count{$word}++;
    push @words, $word if number(4) == 0;
}
my @order = sort { $count{$b} <=> $count{$a} || $a cmp $b } keys %count;
print scalar(@order), " @order[0 .. 9]\n";

my $text = join ' ', @words;
my $vowels = () = $text =~ /\b[aeiou]\w*[aeiou]\b/g;
(my $turned = $text) =~ s/(\w)(\w+)/$2$1/g;
print length($text), " $vowels ", unpack('%32C*', $turned), "\n";

my @table = map { [map { $_ * $_ } 1 .. number(60)] } 1 .. 3000;
my $sum = 0;
$sum += $_ for map { @$_ } @table;
splice @table, number(scalar @table), 1 while @table > 100;
print "$sum ", scalar(@table), "\n";

my $long = '';
$long .= sprintf('%08x', number(2**30)) for 1 .. 100000;
substr($long, number(length $long), 7) = 'slab' for 1 .. 1000;
print length($long), ' ', unpack('%32C*', $long), "\n";

open(my $pipe, '-|', 'echo a child') or die;
print while <$pipe>;
close $pipe;
