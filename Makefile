# make          builds the program
# make demo     shows sftpfs at work: a private server, a mount, real work in it
# make test     tries everything: formatting, lints, unit and property tests, real mounts
# make install  puts the binary, the links for mount(8) and the man pages in place
#
# demo and test install what Debian lacks; neither starts a service or leaves a process or a
# mount behind.

PREFIX ?= /usr/local

# Debian and its kin have /sbin as a link to /usr/sbin; mount(8) looks into /sbin only.
SBIN ?= /sbin

.PHONY: all demo test format lint unit mount-tests packages install
.NOTPARALLEL:

# A C compiler, OpenSSL and zlib for the SSH libraries; the rest is what the tests run.
BUILD_PACKAGES := build-essential ca-certificates cmake libssl-dev pkg-config zlib1g-dev
DEMO_PACKAGES := fuse3 git openssh-client openssh-server openssh-sftp-server sqlite3
TEST_PACKAGES := btrfs-progs dbus-daemon diffutils e2fsprogs python3 rsync util-linux xfsprogs
# What is tried with these is skipped, and says so, where they cannot be had.
OPTIONAL_PACKAGES := fio

all:
	cargo build --release --locked

demo:
	@mount-tests/packages.sh $(BUILD_PACKAGES) $(DEMO_PACKAGES)
	cargo build --quiet --locked --workspace --bins
	cargo mount-tests demo

test: packages format lint unit mount-tests

packages:
	@mount-tests/packages.sh $(BUILD_PACKAGES) $(DEMO_PACKAGES) $(TEST_PACKAGES)
	-@mount-tests/packages.sh $(OPTIONAL_PACKAGES)

# rustfmt and clippy are components that a minimal toolchain lacks.
format:
	@if cargo fmt --version >/dev/null 2>&1; then cargo fmt --all --check; \
	else echo "no rustfmt here: formatting is not checked"; fi

lint:
	@if cargo clippy --version >/dev/null 2>&1; then \
		cargo clippy --quiet --locked --workspace --all-targets -- -D warnings; \
	else echo "no clippy here: lints are not checked"; fi

unit:
	cargo test --locked --workspace --no-fail-fast

mount-tests:
	cargo mount-tests

# sudo often has no cargo: what `make` built is taken if it is there.
install:
	@test -x target/release/sftpfs || cargo build --release --locked
	install -D -m 755 target/release/sftpfs $(DESTDIR)$(PREFIX)/bin/sftpfs
	install -D -m 644 man/sftpfs.1 $(DESTDIR)$(PREFIX)/share/man/man1/sftpfs.1
	install -D -m 644 man/mount.sftpfs.8 $(DESTDIR)$(PREFIX)/share/man/man8/mount.sftpfs.8
	install -d $(DESTDIR)$(SBIN)
	for name in mount.sftpfs mount.fuse.sftpfs umount.fuse.sftpfs; do \
		ln -sf $(PREFIX)/bin/sftpfs $(DESTDIR)$(SBIN)/$$name; done
