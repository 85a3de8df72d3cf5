# Builds, checks, tests and installs socks5d and its client. `make help` lists the targets.

PREFIX  ?= /usr/local
MINUTES ?= 5
DESTDIR ?=
CARGO   ?= cargo
SECONDS ?= 60
ROUNDS  ?= 5
PERIOD  ?= 2
WORKLOADS ?=
PEERS   ?=
QUICK   ?=
CALLS   ?=
TARGET  := $(or $(CARGO_TARGET_DIR),target)
# What has property tests (tests/support/src/property.rs): test binaries, and modules of them.
PROPERTIES := --test=project --test=program --test=metp -- documents:: log_injection:: session::
# Most tests wait for something most of their time.
THREADS ?= $(shell n=$$(nproc 2>/dev/null || echo 1); echo $$((n > 8 ? n : 8)))
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
MINIMUM := $(shell sed -n 's/^rust-version = "\([0-9.]*\)"/\1/p' Cargo.toml)

.DEFAULT_GOAL := all
.PHONY: all test quick check deny advisories soak inject test-peers test-package test-image bench bench-micro fuzz install deb image dist release-check clean help rust

all: rust ## build the release binaries: bin/socks5d and bin/client
	$(CARGO) build --release --locked --bins
	@mkdir -p bin
	@for name in socks5d client; do \
		cp $(TARGET)/release/$$name bin/.$$name.new && mv bin/.$$name.new bin/$$name || exit 1; \
	done

test: check ## check, then run all tests, THREADS of them (8, or one for each core) at a time
	$(CARGO) build --locked --workspace --bins
	unset PROPTEST_RNG_SEED; $(CARGO) test --locked --workspace -- --test-threads=$(THREADS)

# What starts no program, so that little has to be linked.
quick: rust ## unit tests and the simulation alone, a matter of seconds after a change of one file
	unset PROPTEST_RNG_SEED; $(CARGO) test --locked $(addprefix --package=,socks5d client common metp-protocol sim) \
		--lib --bins --test=replay

check: rust deny ## format, lints and documents, without a warning
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --workspace --no-deps --document-private-items

# What is not installed is not asked for: `make check` works with Rust alone.
deny: rust ## licences, duplicates and sources of all packages, where cargo-deny is installed (deny.toml)
	@if $(CARGO) deny --version >/dev/null 2>&1; then \
		$(CARGO) deny --workspace --locked check bans licenses sources; \
	else \
		echo "SKIPPED: cargo-deny is not installed; licences, duplicates and sources were not checked" >&2; \
	fi

# Not a part of check: what it finds depends on the day, and it needs the network.
advisories: rust ## known vulnerabilities of all packages, where cargo-deny is installed and its database can be had
	@if ! $(CARGO) deny --version >/dev/null 2>&1; then \
		echo "SKIPPED: cargo-deny is not installed; advisories were not checked" >&2; \
	elif ! $(CARGO) deny fetch db >/dev/null 2>&1; then \
		echo "SKIPPED: the database of advisories cannot be fetched; advisories were not checked" >&2; \
	else \
		$(CARGO) deny --workspace --locked check advisories; \
	fi

soak: all ## a mixed load for MINUTES (default 5) that checks every byte, descriptors and memory; then 200 kills amid changes
	$(CARGO) run --release --locked --package soak -- $(MINUTES)
	$(CARGO) build --locked --workspace --bins
	SOCKS5D_CRASHES=200 $(CARGO) test --locked --test=accounts crash::

test-peers: all ## real clients, where they are installed: curl, nc, socat, chromium, torsocks, a JDK and others
	python3 tests/peers/run.py $(TARGET)/release

# Not a part of `make test`: it takes root, and packages from Debian.
test-package: ## install, use, upgrade and purge the package in a throwaway Debian, where mmdebstrap is installed
	@if ! command -v dh >/dev/null || ! { command -v mmdebstrap || command -v debootstrap; } >/dev/null; then \
		echo "SKIPPED: debhelper, mmdebstrap or debootstrap is not installed; the package was not tested" >&2; \
	else \
		$(MAKE) --no-print-directory deb && tests/package/run.sh $(TARGET)/deb/socks5d_*.deb; \
	fi

# Not a part of `make test`: it takes root.
test-image: ## run the image of a container as process 1, read-only and without capabilities, where buildah is installed
	@if ! command -v buildah >/dev/null; then \
		echo "SKIPPED: buildah is not installed; the image was not tested" >&2; \
	else \
		$(MAKE) --no-print-directory image && tests/container/run.sh socks5d:$(VERSION); \
	fi

# It needs strace, which is not part of what `make test` may ask for.
inject: all ## make system calls fail under load, with strace; QUICK=1: a subset; CALLS=splice,accept4: only these
	$(CARGO) run --release --locked --package inject -- $(if $(QUICK),--quick) $(if $(CALLS),--calls $(CALLS))

bench: all ## compare with other proxies: ROUNDS (5) of PERIOD (2) seconds; WORKLOADS, PEERS; see bench/README.md
	$(CARGO) build --release --locked --package bench --bins
	$(TARGET)/release/bench --socks5d $(TARGET)/release/socks5d --rounds $(ROUNDS) --seconds $(PERIOD) \
		$(if $(WORKLOADS),--workloads $(WORKLOADS)) $(if $(PEERS),--peers $(PEERS))

bench-micro: rust ## time parsers and lane alone, with Criterion
	$(CARGO) bench --locked --package bench

# Stable Rust will do: cargo-fuzz asks for nightly options, which RUSTC_BOOTSTRAP allows. No sanitizer: what is
# fuzzed is safe code, and without one there is time for several times as many inputs.
fuzz: rust ## run property tests with random cases, and each fuzz target for SECONDS (60); finds are in fuzz/artifacts
	@$(CARGO) build --locked --workspace --bins
	@export PROPTEST_RNG_SEED=$$(od -An -N4 -tu4 /dev/urandom | tr -d ' '); \
	echo "property tests: PROPTEST_RNG_SEED=$$PROPTEST_RNG_SEED"; \
	$(CARGO) test --locked --package socks5d --package metp-protocol --lib && \
	$(CARGO) test --locked --package socks5d $(PROPERTIES)
	@$(CARGO) fuzz --version >/dev/null 2>&1 || $(CARGO) install --locked cargo-fuzz
	@export RUSTC_BOOTSTRAP=1; $(CARGO) fuzz build -s none || exit 1; \
	for target in $$(ls fuzz/corpus); do \
		dict=fuzz/dict/$$target.dict log=fuzz/artifacts/$$target.log; \
		mkdir -p fuzz/found/$$target fuzz/artifacts; \
		echo "$$target: $(SECONDS) s"; \
		$(CARGO) fuzz run -s none $$target fuzz/found/$$target fuzz/corpus/$$target -- \
			-max_total_time=$(SECONDS) -max_len=4200 -timeout=10 \
			$$([ -f $$dict ] && echo -dict=$$dict) >$$log 2>&1 || { tail -n 60 $$log; exit 1; }; \
		grep -a ' cov: \|^Done' $$log | tail -n 2; \
	done

install: bin/socks5d bin/client ## install binaries, manuals and completions below DESTDIR and PREFIX
	install -d "$(DESTDIR)$(PREFIX)/bin" "$(DESTDIR)$(PREFIX)/share/doc/socks5d" \
		$(foreach section,1 5 7 8,"$(DESTDIR)$(PREFIX)/share/man/man$(section)") \
		"$(DESTDIR)$(PREFIX)/share/bash-completion/completions" "$(DESTDIR)$(PREFIX)/share/zsh/site-functions" \
		"$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d"
	install -m 755 bin/socks5d bin/client "$(DESTDIR)$(PREFIX)/bin"
	install -m 644 man/client.1 "$(DESTDIR)$(PREFIX)/share/man/man1"
	install -m 644 man/socks5d.conf.5 "$(DESTDIR)$(PREFIX)/share/man/man5"
	install -m 644 man/metp.7 "$(DESTDIR)$(PREFIX)/share/man/man7"
	install -m 644 man/socks5d.8 "$(DESTDIR)$(PREFIX)/share/man/man8"
	install -m 644 protocol_metp.txt "$(DESTDIR)$(PREFIX)/share/doc/socks5d"
	for name in socks5d client; do \
		install -m 644 contrib/completions/$$name.bash \
			"$(DESTDIR)$(PREFIX)/share/bash-completion/completions/$$name" || exit 1; \
	done
	install -m 644 contrib/completions/_socks5d contrib/completions/_client \
		"$(DESTDIR)$(PREFIX)/share/zsh/site-functions"
	install -m 644 contrib/completions/socks5d.fish contrib/completions/client.fish \
		"$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d"

# In a folder below the target, so that the tree stays clean. Rust may come from elsewhere than Debian: -d.
deb: all ## build a package for Debian in target/deb, where debhelper is installed (apt-get install debhelper)
	@command -v dh >/dev/null || { echo "make deb needs debhelper: sudo apt-get install debhelper" >&2; exit 1; }
	rm -rf $(TARGET)/deb && mkdir -p $(TARGET)/deb/build && cp -R debian $(TARGET)/deb/build
	cd $(TARGET)/deb/build && SOURCE="$(CURDIR)" dpkg-buildpackage -b -us -uc -d >build.log 2>&1 || { cat build.log; exit 1; }
	@rm -rf $(TARGET)/deb/build && ls $(TARGET)/deb/*.deb

# The second stage of the Containerfile; HEALTHCHECK is no part of the OCI's format.
image: all ## build the image of a container with buildah, and target/image/socks5d.tar for docker load
	@command -v buildah >/dev/null || { echo "make image needs buildah: sudo apt-get install buildah" >&2; exit 1; }
	rm -rf $(TARGET)/image && mkdir -p $(TARGET)/image
	contrib/container/stage.sh bin $(TARGET)/image/stage
	sed -n '/^FROM scratch/,$$p' contrib/container/Containerfile | sed 's/--from=build //' >$(TARGET)/image/Containerfile
	buildah build --format docker --isolation chroot -f $(TARGET)/image/Containerfile -t socks5d:$(VERSION) $(TARGET)/image
	buildah push -q socks5d:$(VERSION) docker-archive:$(TARGET)/image/socks5d.tar:socks5d:$(VERSION)

dist: rust ## make a source archive with all crates in target/dist, which builds without a network, and its checksum
	CARGO="$(CARGO)" contrib/dist.sh $(TARGET)/dist

release-check: ## all that can be checked before a release; see CONTRIBUTING.md
	.ci/release

# What is built already can be installed by somebody who has no Rust, such as root.
bin/socks5d bin/client:
	@$(MAKE) --no-print-directory all

clean: ## remove everything that was built
	rm -rf "$(TARGET)" bin/socks5d bin/client bin/.*.new

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1	\2/p' $(MAKEFILE_LIST)

# One clear line if Rust is missing or too old, instead of an error from the depths of a build.
rust:
	@version=$$($(CARGO) --version 2>/dev/null | awk '{ print $$2 }'); \
	oldest=$$(printf '%s\n' "$(MINIMUM)" "$$version" | sort -V | head -n 1); \
	if [ -z "$$version" ] || [ "$$oldest" != "$(MINIMUM)" ]; then \
		echo "socks5d needs Rust $(MINIMUM) or newer (found: $${version:-none}): install it from https://rustup.rs, then 'rustup update stable'" >&2; \
		exit 1; \
	fi
