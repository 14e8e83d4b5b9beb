#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Write into the directory $1 what a host is like: files, their content, users, units, packages.
set -eu
mkdir -p "$1"
cd "$1"
# What the package manager and the init system note for themselves says nothing about a rollback.
find /etc /usr/local /opt /run/systemd/system /var/lib -xdev \
    \( -path /var/lib/apt -o -path /var/lib/dpkg -o -path /var/lib/systemd -o -path /var/lib/ucf \
    -o -path '/etc/*-' -o -path /etc/ld.so.cache -o -path /etc/.pwd.lock \) -prune \
    -o -printf '%M %u:%g %p -> %l\n' | sort >files
find /etc /usr/local/lib/systemd -xdev -type f \
    ! -path '/etc/*-' ! -path /etc/ld.so.cache ! -path /etc/shadow ! -path /etc/gshadow \
    -exec sha256sum {} + 2>/dev/null | sort >contents
getent passwd | sort >users
getent group | sort >groups
systemctl list-unit-files --no-legend --no-pager --state=enabled | awk '{ print $1 }' | sort >units
apt-mark showmanual | sort >packages
ss -Hltn | awk '{ print $4 }' | sort >listening
