/* The subcommands of keyless-bench; each parses its own options and returns an exit status. */
#ifndef KEYLESS_BENCH_BENCH_H
#define KEYLESS_BENCH_BENCH_H

int bench_handshake(int argc, char **argv);
int bench_keyserver(int argc, char **argv);

#endif
