<?php
// Arrays, strings, JSON, regular expressions, generators, and the names of the extensions, which are opened by RTLD_DEEPBIND.
$extensions = get_loaded_extensions();
sort($extensions);
echo implode(" ", $extensions), "\n";
$people = [];
for ($i = 0; $i < 50000; $i++) {
    $people[] = ["id" => $i, "name" => str_repeat(chr(97 + $i % 26), $i % 40), "tags" => range(0, $i % 7)];
}
$text = json_encode($people);
echo strlen($text), " ", md5($text), "\n";
$again = json_decode($text, true);
echo $again == $people ? "the same" : "different", "\n";
usort($again, fn($a, $b) => [$a["name"], $a["id"]] <=> [$b["name"], $b["id"]]);
echo $again[1234]["id"], " ", count(array_unique(array_column($again, "name"))), "\n";
echo preg_match_all('/"name":"([a-e]{5,})"/', $text, $found), " ", count(array_count_values($found[1])), "\n";
function squares(int $most) {
    for ($i = 0; $i < $most; $i++) yield "key$i" => $i * $i;
}
$sum = 0;
foreach (squares(100000) as $key => $square) $sum += $square + strlen($key);
echo $sum, "\n";
$serialized = serialize($people);
echo strlen($serialized), " ", crc32($serialized), " ", count(unserialize($serialized)), "\n";
