#include "proxy/hello_answer.h"

#include <stdint.h>
#include <string.h>
#include <time.h>

#include "common/bytes.h"

/* ---- What is told. */

struct fact {
    const char *name;
    struct bytes text;
    uint64_t number; /* microseconds for FACT_MILLISECONDS */
    enum fact_type { FACT_TEXT, FACT_MILLISECONDS, FACT_COUNT, FACT_TRUTH } type;
    bool known;
};

#define FACT_ROWS 18

static struct bytes text_of(const char *text)
{
    return text == NULL ? (struct bytes){0} : bytes_of(text, strlen(text));
}

static struct bytes name_of(const uint8_t *name, size_t size)
{
    return size == 0 ? (struct bytes){0} : bytes_of(name, size);
}

static struct fact fact_text(const char *name, struct bytes text)
{
    return (struct fact){.name = name, .type = FACT_TEXT, .text = text, .known = text.data != NULL};
}

static struct fact fact_number(const char *name, enum fact_type type, uint64_t number, bool known)
{
    return (struct fact){.name = name, .type = type, .number = number, .known = known};
}

static void facts_list(const struct hello_facts *facts, const char *client, struct fact rows[FACT_ROWS])
{
    const struct handshake_facts *h = &facts->handshake;
    const struct client_identity *who = h->client;
    bool was_signed = h->key_server != NULL;
    const struct fact list[FACT_ROWS] = {
        fact_text("version", text_of(h->version)),
        fact_text("suite", text_of(h->suite)),
        fact_text("group", text_of(h->group)),
        fact_text("scheme", text_of(h->scheme)),
        fact_text("sni", name_of(h->sni, h->sni_size)),
        fact_text("alpn", name_of(h->alpn, h->alpn_size)),
        fact_text("key_server", text_of(h->key_server)),
        fact_text("operation", text_of(h->operation)),
        fact_number("key_ms", FACT_MILLISECONDS, h->key_duration, was_signed),
        fact_number("handshake_ms", FACT_MILLISECONDS, h->duration, true),
        fact_number("resumed", FACT_TRUTH, h->resumed, true),
        fact_number("retries", FACT_COUNT, h->retries, true),
        fact_text("client", text_of(client)),
        fact_text("client_subject", text_of(who != NULL ? who->subject : NULL)),
        fact_text("client_san", text_of(who != NULL && who->san[0] != '\0' ? who->san : NULL)),
        fact_text("client_sha256", text_of(who != NULL ? who->fingerprint : NULL)),
        fact_text("client_serial", text_of(who != NULL ? who->serial : NULL)),
        fact_number("worker", FACT_COUNT, facts->worker, true),
    };
    memcpy(rows, list, sizeof list);
}

/* ---- Escaping. Names come from the client: every octet that is not plain ASCII is written as a reference to
 * the code point of the same number, so that the document is ASCII whatever the name is. */

static void octet_json(struct evbuffer *to, uint8_t octet)
{
    if (octet < ' ' || octet >= 0x7f || octet == '"' || octet == '\\')
        evbuffer_add_printf(to, "\\u%04x", octet);
    else
        evbuffer_add(to, &octet, 1);
}

static void octet_html(struct evbuffer *to, uint8_t octet)
{
    /* HTML knows no references to the C0 and C1 controls. */
    if (octet < ' ' || (octet >= 0x7f && octet < 0xa0))
        evbuffer_add_printf(to, "&#xfffd;");
    else if (octet >= 0xa0 || strchr("&<>\"'", octet) != NULL)
        evbuffer_add_printf(to, "&#%u;", octet);
    else
        evbuffer_add(to, &octet, 1);
}

static void text_write(struct evbuffer *to, struct bytes text, void (*octet)(struct evbuffer *, uint8_t))
{
    for (size_t i = 0; i < text.size; i++)
        octet(to, text.data[i]);
}

/* ---- Documents. */

static void number_write(struct evbuffer *to, const struct fact *fact)
{
    unsigned long long number = fact->number;
    if (fact->type == FACT_MILLISECONDS)
        evbuffer_add_printf(to, "%llu.%03llu", number / 1000, number % 1000);
    else if (fact->type == FACT_TRUTH)
        evbuffer_add_printf(to, "%s", number ? "true" : "false");
    else
        evbuffer_add_printf(to, "%llu", number);
}

static void fact_json(struct evbuffer *to, const struct fact *fact)
{
    if (!fact->known) {
        evbuffer_add_printf(to, "null");
    } else if (fact->type == FACT_TEXT) {
        evbuffer_add_printf(to, "\"");
        text_write(to, fact->text, octet_json);
        evbuffer_add_printf(to, "\"");
    } else {
        number_write(to, fact);
    }
}

static void document_json(struct evbuffer *to, const struct fact rows[FACT_ROWS])
{
    evbuffer_add_printf(to, "{");
    for (size_t i = 0; i < FACT_ROWS; i++) {
        evbuffer_add_printf(to, "%s\n  \"%s\": ", i > 0 ? "," : "", rows[i].name);
        fact_json(to, &rows[i]);
    }
    evbuffer_add_printf(to, "\n}\n");
}

static void document_html(struct evbuffer *to, const struct fact rows[FACT_ROWS])
{
    evbuffer_add_printf(to, "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
                            "<title>Keyless</title></head>\n<body><h1>It works, and no key is here</h1>\n"
                            "<table>\n");
    for (size_t i = 0; i < FACT_ROWS; i++) {
        evbuffer_add_printf(to, "<tr><th>%s</th><td>", rows[i].name);
        if (!rows[i].known)
            evbuffer_add_printf(to, "&ndash;");
        else if (rows[i].type == FACT_TEXT)
            text_write(to, rows[i].text, octet_html);
        else
            number_write(to, &rows[i]);
        evbuffer_add_printf(to, "</td></tr>\n");
    }
    evbuffer_add_printf(to, "</table></body></html>\n");
}

static void document_write(struct evbuffer *to, const struct http_request *request,
                           const struct hello_facts *facts)
{
    char client[ADDRESS_TEXT_SIZE];
    struct fact rows[FACT_ROWS];
    facts_list(facts, address_format(&facts->client, client), rows);
    if (request->html)
        document_html(to, rows);
    else
        document_json(to, rows);
}

/* ---- Answers. */

static const struct {
    unsigned status;
    const char *phrase;
} PHRASES[] = {
    {200, "OK"},
    {400, "Bad Request"},
    {405, "Method Not Allowed"},
    {413, "Content Too Large"},
    {431, "Request Header Fields Too Large"},
    {501, "Not Implemented"},
    {505, "HTTP Version Not Supported"},
};

static const char *phrase_of(unsigned status)
{
    for (size_t i = 0; i < sizeof PHRASES / sizeof *PHRASES; i++)
        if (PHRASES[i].status == status)
            return PHRASES[i].phrase;
    return "Error";
}

static void head_write(struct evbuffer *to, const struct http_request *request, size_t size, bool close)
{
    char date[64] = "";
    time_t now = time(NULL);
    struct tm utc;
    if (gmtime_r(&now, &utc) != NULL)
        (void)strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S GMT", &utc);
    const char *type = request->status != 200 ? "text/plain"
                       : request->html        ? "text/html"
                                              : "application/json";
    evbuffer_add_printf(to,
                        "HTTP/1.1 %u %s\r\nDate: %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n"
                        "Cache-Control: no-store\r\nVary: Accept\r\n",
                        request->status, phrase_of(request->status), date, type, size);
    if (request->status == 405)
        evbuffer_add_printf(to, "Allow: GET, HEAD\r\n");
    evbuffer_add_printf(to, "Connection: %s\r\n\r\n", close ? "close" : "keep-alive");
}

bool hello_answer_write(struct evbuffer *to, const struct http_request *request,
                        const struct hello_facts *facts, bool close)
{
    struct evbuffer *document = evbuffer_new();
    if (document == NULL)
        return false;
    if (request->status == 200)
        document_write(document, request, facts);
    else
        evbuffer_add_printf(document, "%s\n", phrase_of(request->status));
    head_write(to, request, evbuffer_get_length(document), close);
    bool written = request->head_only || evbuffer_add_buffer(to, document) == 0;
    evbuffer_free(document);
    return written;
}
