PREFIX ?= /usr/local

# Debian and its kin have /sbin as a link to /usr/sbin; mount(8) looks into /sbin only.
SBIN ?= /sbin

.PHONY: install

install:
	cargo build --release --locked
	install -D -m 755 target/release/sftpfs $(DESTDIR)$(PREFIX)/bin/sftpfs
	install -D -m 644 man/sftpfs.1 $(DESTDIR)$(PREFIX)/share/man/man1/sftpfs.1
	install -D -m 644 man/mount.sftpfs.8 $(DESTDIR)$(PREFIX)/share/man/man8/mount.sftpfs.8
	install -d $(DESTDIR)$(SBIN)
	for name in mount.sftpfs mount.fuse.sftpfs umount.fuse.sftpfs; do \
		ln -sf $(PREFIX)/bin/sftpfs $(DESTDIR)$(SBIN)/$$name; done
