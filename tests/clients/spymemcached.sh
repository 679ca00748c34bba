#!/bin/bash
# Runs Spymemcached.java, whose source Java compiles itself.
set -eu
# What it logs it writes to standard error.
java -XX:TieredStopAtLevel=1 -cp /usr/share/java/spymemcached.jar "$1"
