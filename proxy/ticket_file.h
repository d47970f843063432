/*
 * Ticket keys from files, which somebody else makes and rotates. A file is either one key of 48 or 80 octets,
 * as nginx takes it (ssl_session_ticket_key), or lines of such keys in base64, as HAProxy does
 * (tls-ticket-keys).
 */
#ifndef KEYLESS_PROXY_TICKET_FILE_H
#define KEYLESS_PROXY_TICKET_FILE_H

#include "common/result.h"
#include "proxy/config.h"
#include "proxy/ticket_keys.h"

/*
 * Reads tickets.files. The first file's key makes tickets, and all open them; in a file with lines of three
 * keys or more it is the last but one, as HAProxy has it, so that the last one can be known everywhere before
 * it is used. RESULT_CONFIG names the file: it may be read by others, or holds something else. keys is wiped
 * by the caller.
 */
MUST_CHECK enum result ticket_file_read(const struct proxy_config *config, struct ticket_keys *keys,
                                        struct failure *why);

#endif
