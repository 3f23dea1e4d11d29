# Builds, installs and packs slabside; a thin layer over cargo.
#
#   make                    build everything in release, with manual pages and completions
#   make install            to PREFIX (/usr/local), below DESTDIR
#   make uninstall          the same files go
#   make deb                target/packages/*.deb: the command with its library, and what programs are built with
#   make dist               target/packages/slabside-VERSION-MACHINE.tar.gz, which runs where it is unpacked
#   make check-install      install, deb and dist into a scratch root, and use all that is there
#   make quick              format, lints and unit tests: no programs in C, no release build
#   make c TEST=misuse      one file of tests/, which builds the libraries without link-time optimization
#   make test               all tests
#   make bench ROW=churn    one row of the benchmarks
#   make deny               licenses and sources of the dependencies, by cargo-deny
#   make book               the pages as a book in target/book, by mdbook, with every link checked

PREFIX ?= /usr/local
BINDIR ?= $(PREFIX)/bin
LIBDIR ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
MANDIR ?= $(PREFIX)/share/man
DATADIR ?= $(PREFIX)/share
CARGO ?= cargo
INSTALL ?= install
# What is installed has no debugging information; STRIP=: leaves it in.
STRIP ?= strip
CARGO_TARGET_DIR ?= target
# What slabside.pc calls its prefix: a tree that is moved about names it by its own place.
PC_PREFIX ?= $(PREFIX)

version := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
soversion := 0
release := $(CARGO_TARGET_DIR)/release
pages := $(CARGO_TARGET_DIR)/pages
built := $(release)/slabside $(release)/libslabside.a $(release)/libslabside_preload.a $(release)/libslabside_preload.so
commands = $(notdir $(wildcard $(pages)/man/*.1))

.PHONY: all pages install uninstall deb dist check-install quick c test bench book deny clean
all:
	$(CARGO) build --release -p slabside-c -p slabside-preload -p slabside-static -p slabside-cli
	$(MAKE) --no-print-directory pages

pages: $(release)/slabside
	rm -rf $(pages)
	mkdir -p $(pages)/man $(pages)/completions
	$(release)/slabside manual $(pages)/man
	cp packaging/slabside.3 $(pages)/man
	$(release)/slabside completions bash > $(pages)/completions/bash
	$(release)/slabside completions zsh > $(pages)/completions/zsh
	$(release)/slabside completions fish > $(pages)/completions/fish

# Only where they are missing, so that `sudo make install` after `make` needs no cargo.
$(built):
	$(CARGO) build --release -p slabside-c -p slabside-preload -p slabside-static -p slabside-cli

$(pages)/man/slabside.3: $(built)
	$(MAKE) --no-print-directory pages

# The pages and what they link to, laid as here, so that the links hold.
page_directories := docs docs/plots include examples tests/c/misuse

to := $(DESTDIR)
fill = sed -e 's|@PREFIX@|$(PC_PREFIX)|' -e 's|@VERSION@|$(version)|' -e 's|@SOVERSION@|$(soversion)|g' \
	-e 's|@LIBDIR@|$(patsubst $(PREFIX)/%,$${prefix}/%,$(LIBDIR))|' \
	-e 's|@INCLUDEDIR@|$(patsubst $(PREFIX)/%,$${prefix}/%,$(INCLUDEDIR))|' \
	-e "s|@INCLUDEDIR_FROM_CONFIG@|$$(realpath -ms --relative-to=$(LIBDIR)/cmake/slabside $(INCLUDEDIR))|" \
	-e 's|@MAJOR@|$(word 1,$(subst ., ,$(version)))|' -e 's|@MINOR@|$(word 2,$(subst ., ,$(version)))|'

install: $(built) $(pages)/man/slabside.3
	$(INSTALL) -d $(to)$(BINDIR) $(to)$(LIBDIR)/pkgconfig $(to)$(LIBDIR)/cmake/slabside $(to)$(INCLUDEDIR) \
		$(to)$(MANDIR)/man1 $(to)$(MANDIR)/man3 $(to)$(MANDIR)/man7 $(to)$(DATADIR)/doc/slabside \
		$(to)$(DATADIR)/bash-completion/completions $(to)$(DATADIR)/zsh/site-functions \
		$(to)$(DATADIR)/fish/vendor_completions.d
	$(INSTALL) -m 755 $(release)/slabside $(to)$(BINDIR)/slabside
	$(STRIP) $(to)$(BINDIR)/slabside
	$(INSTALL) -m 644 $(release)/libslabside.a $(release)/libslabside_preload.a $(to)$(LIBDIR)
	$(STRIP) --strip-debug $(to)$(LIBDIR)/libslabside.a $(to)$(LIBDIR)/libslabside_preload.a
	$(INSTALL) -m 644 $(release)/libslabside_preload.so $(to)$(LIBDIR)/libslabside.so.$(version)
	$(STRIP) --strip-unneeded $(to)$(LIBDIR)/libslabside.so.$(version)
	ln -sf libslabside.so.$(version) $(to)$(LIBDIR)/libslabside.so.$(soversion)
	ln -sf libslabside.so.$(soversion) $(to)$(LIBDIR)/libslabside.so
	$(INSTALL) -m 644 include/slabside.h $(to)$(INCLUDEDIR)
	$(fill) packaging/slabside.pc.in > $(to)$(LIBDIR)/pkgconfig/slabside.pc
	$(fill) packaging/slabside-static.pc.in > $(to)$(LIBDIR)/pkgconfig/slabside-static.pc
	$(fill) packaging/slabside-config.cmake.in > $(to)$(LIBDIR)/cmake/slabside/slabside-config.cmake
	$(fill) packaging/slabside-config-version.cmake.in > $(to)$(LIBDIR)/cmake/slabside/slabside-config-version.cmake
	$(INSTALL) -m 644 $(pages)/man/*.1 $(to)$(MANDIR)/man1
	$(INSTALL) -m 644 $(pages)/man/slabside.3 $(to)$(MANDIR)/man3
	$(INSTALL) -m 644 $(pages)/man/slabside-options.7 $(to)$(MANDIR)/man7
	$(INSTALL) -m 644 $(pages)/completions/bash $(to)$(DATADIR)/bash-completion/completions/slabside
	$(INSTALL) -m 644 $(pages)/completions/zsh $(to)$(DATADIR)/zsh/site-functions/_slabside
	$(INSTALL) -m 644 $(pages)/completions/fish $(to)$(DATADIR)/fish/vendor_completions.d/slabside.fish
	for directory in . $(page_directories); do \
		$(INSTALL) -d $(to)$(DATADIR)/doc/slabside/$$directory || exit 1; \
	done
	for page in LICENSE *.md $(addsuffix /*.*,$(page_directories)); do \
		$(INSTALL) -m 644 $$page $(to)$(DATADIR)/doc/slabside/$$page || exit 1; \
	done

uninstall:
	rm -f $(to)$(BINDIR)/slabside $(to)$(INCLUDEDIR)/slabside.h
	rm -f $(addprefix $(to)$(LIBDIR)/,libslabside.a libslabside_preload.a libslabside.so libslabside.so.$(soversion) \
		libslabside.so.$(version) pkgconfig/slabside.pc pkgconfig/slabside-static.pc)
	rm -f $(to)$(MANDIR)/man1/slabside.1 $(to)$(MANDIR)/man1/slabside-*.1
	rm -f $(to)$(MANDIR)/man3/slabside.3 $(to)$(MANDIR)/man7/slabside-options.7
	rm -f $(to)$(DATADIR)/bash-completion/completions/slabside $(to)$(DATADIR)/zsh/site-functions/_slabside \
		$(to)$(DATADIR)/fish/vendor_completions.d/slabside.fish
	rm -rf $(to)$(LIBDIR)/cmake/slabside $(to)$(DATADIR)/doc/slabside

deb: $(built)
	packaging/deb.sh

dist: $(built)
	packaging/dist.sh

check-install: $(built)
	packaging/check.sh

quick:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace -- -D warnings
	$(CARGO) test -p slabside-base -p slabside-core -p slabside-sim -p slabside --lib --test layers --test heap_over_sim --test arena_over_sim

c:
	CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_TARGET_DIR=target/quick \
		$(CARGO) test -p slabside --test $(TEST)

test:
	$(CARGO) test --workspace

bench:
	bench/compare.sh --only $(ROW)

book:
	packaging/book.sh

deny:
	packaging/tools.sh cargo deny check bans licenses sources

clean:
	$(CARGO) clean
