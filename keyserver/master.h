/* The key server as its master sees it: what a reading of the configuration comes to, and which children
 * there are. The master never reads a site's key. */
#ifndef KEYLESS_KEYSERVER_MASTER_H
#define KEYLESS_KEYSERVER_MASTER_H

/* Runs the key server with this configuration until it is told to end; the program's exit status. */
int keyserver_master(const char *config_path);

/* What -t does: reads the configuration and everything that it names, the keys included, and prints the
 * settings in force and the keys; the program's exit status. */
int keyserver_check(const char *config_path);

#endif
