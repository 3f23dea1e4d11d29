# Loops, arrays, functions, command substitution, subshells, here-documents and jobs.
fibonacci() { if (($1 < 2)); then echo "$1"; else echo $(($(fibonacci $(($1 - 1))) + $(fibonacci $(($1 - 2))))); fi; }
echo "$(fibonacci 9)"

declare -A seen
list=()
for ((i = 0; i < 20000; i++)); do
    word="w$((i * 7919 % 1009))"
    seen[$word]=$((${seen[$word]:-0} + 1))
    ((i % 50 == 0)) && list+=("$word:$i")
done
echo "${#seen[@]} ${#list[@]} ${list[*]:100:5}"

text=
for ((i = 0; i < 3000; i++)); do text+="$i,"; done
echo "${#text} ${text//1/one}" | cksum
IFS=, read -r -a parts <<<"$text"
echo "${#parts[@]} ${parts[2999]}"

total=0
while read -r number; do ((total += number)); done < <(for ((i = 0; i < 5000; i++)); do echo "$i"; done)
echo "$total"

for i in 1 2 3 4 5 6 7 8; do
    (for ((k = 0; k < 500; k++)); do local_text="$i$k$local_text"; done; echo "$i ${#local_text}" >"job$i") &
done
wait
cat job?
cat <<END
$(printf '%s\n' "${!seen[@]}" | sort | head -5)
END
