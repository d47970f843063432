#include "tests/bench/request.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/err.h>

#include "common/clock.h"

static const char FORMAT[] = "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n";

char *request_text(const char *path, const char *host)
{
    size_t size = sizeof FORMAT + strlen(path) + strlen(host);
    char *text = malloc(size);
    if (text != NULL)
        (void)snprintf(text, size, FORMAT, path, host);
    return text;
}

bool request_path_valid(const char *path)
{
    if (*path != '/')
        return false;
    for (; *path != '\0'; path++)
        if ((unsigned char)*path <= ' ' || *path == 0x7F)
            return false;
    return true;
}

/* An end without close_notify is one like any other: HTTP/1 servers often leave it out. */
static enum request_state stopped(const struct request *request, const SSL *ssl, int result)
{
    switch (SSL_get_error(ssl, result)) {
    case SSL_ERROR_WANT_READ:
        return REQUEST_READS;
    case SSL_ERROR_WANT_WRITE:
        return REQUEST_WRITES;
    default:
        return request->answered != 0 ? REQUEST_ANSWERED : REQUEST_UNANSWERED;
    }
}

enum request_state request_step(struct request *request, const char *text, SSL *ssl)
{
    char discarded[16384];
    int result;
    ERR_clear_error();
    if (!request->sent) {
        result = SSL_write(ssl, text, (int)strlen(text));
        if (result <= 0)
            return stopped(request, ssl, result);
        request->sent = true;
    }
    while ((result = SSL_read(ssl, discarded, (int)sizeof discarded)) > 0)
        if (request->answered == 0)
            request->answered = clock_now();
    return stopped(request, ssl, result);
}
