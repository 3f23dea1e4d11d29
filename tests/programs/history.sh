# A repository of 400 commits is made, read in several ways, packed and checked.
export HOME=$PWD GIT_CONFIG_NOSYSTEM=1 GIT_PAGER=cat TZ=UTC
git init -q -b main repository
cd repository
awk 'BEGIN {
    for (c = 1; c <= 400; c++) {
        text = "";
        for (l = 0; l < 60; l++) text = text "line " l " of " (l % 7 == c % 7 ? c : l * 3) "\n";
        printf "commit refs/heads/main\ncommitter A Name <a@example.org> %d +0000\n", 1500000000 + c * 1000;
        message = "Change " c;
        printf "data %d\n%s\n", length(message), message;
        printf "M 100644 inline dir%d/file%d\ndata %d\n%s\n", c % 5, c % 23, length(text), text;
    }
}' | git fast-import --quiet
git checkout -q main
git log --oneline | head -5
git log -p --stat --find-renames | cksum
git log --graph --format='%h %an %s %D' --name-status | cksum
git blame dir1/file1 | cksum
git -c pack.threads=3 repack -a -d -f -q --depth=20 --window=20
git -c gc.auto=0 gc -q
git fsck --strict 2>&1
git grep -c 'line 1' | cksum
git diff --shortstat HEAD~50 HEAD
git rev-list --objects --all | wc -l
