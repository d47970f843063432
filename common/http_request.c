#include "common/http_request.h"

#include <string.h>
#include <strings.h>

/* ---- Slices. */

static bool is_token_octet(uint8_t octet)
{
    if (octet <= ' ' || octet >= 0x7f)
        return false;
    return strchr("\"(),/:;<=>?@[\\]{}", octet) == NULL;
}

static bool is_token(struct bytes text)
{
    for (size_t i = 0; i < text.size; i++)
        if (!is_token_octet(text.data[i]))
            return false;
    return text.size > 0;
}

/* No controls but tabs: a bare CR or LF or a NUL is how requests are smuggled. */
static bool is_field_text(struct bytes text)
{
    for (size_t i = 0; i < text.size; i++)
        if ((text.data[i] < ' ' && text.data[i] != '\t') || text.data[i] == 0x7f)
            return false;
    return true;
}

static bool text_is(struct bytes text, const char *wanted)
{
    return text.size == strlen(wanted) && strncasecmp((const char *)text.data, wanted, text.size) == 0;
}

static struct bytes text_trim(struct bytes text)
{
    while (text.size > 0 && (text.data[0] == ' ' || text.data[0] == '\t'))
        text = bytes_of(text.data + 1, text.size - 1);
    while (text.size > 0 && (text.data[text.size - 1] == ' ' || text.data[text.size - 1] == '\t'))
        text.size--;
    return text;
}

/* Takes what comes before `mark` and the mark itself; false: no mark, and then nothing was taken. */
static bool take_before(struct reader *from, const char *mark, struct bytes *slice)
{
    size_t length = strlen(mark);
    const uint8_t *found = from->left > 0 ? memmem(from->next, from->left, mark, length) : NULL;
    struct bytes taken;
    return found != NULL && read_bytes(from, (size_t)(found - from->next), slice) &&
           read_bytes(from, length, &taken);
}

/* The next of a list's elements, trimmed; false at the end. */
static bool take_element(struct reader *list, const char *separator, struct bytes *element)
{
    if (reader_empty(list))
        return false;
    if (!take_before(list, separator, element) && !read_bytes(list, list->left, element))
        return false;
    *element = text_trim(*element);
    return true;
}

/* ---- Header fields. */

struct parser {
    struct http_request *request;
    bool http11;
    unsigned hosts, lengths;
    bool close, expects;
    int html_quality, json_quality; /* thousandths */
};

static bool parser_fail(struct parser *parser, unsigned status)
{
    parser->request->status = status;
    return false;
}

static bool field_host(struct parser *parser, struct bytes value)
{
    parser->request->host = value;
    return ++parser->hosts == 1 || parser_fail(parser, 400);
}

static bool field_content_length(struct parser *parser, struct bytes value)
{
    uint64_t length = 0;
    if (++parser->lengths > 1 || value.size == 0)
        return parser_fail(parser, 400);
    for (size_t i = 0; i < value.size; i++) {
        if (value.data[i] < '0' || value.data[i] > '9')
            return parser_fail(parser, 400);
        if (length <= HTTP_BODY_MAX)
            length = length * 10 + (uint64_t)(value.data[i] - '0');
    }
    parser->request->body = length;
    return length <= HTTP_BODY_MAX || parser_fail(parser, 413);
}

static bool field_transfer_encoding(struct parser *parser, struct bytes value)
{
    (void)value;
    return parser_fail(parser, 501);
}

static bool field_connection(struct parser *parser, struct bytes value)
{
    struct reader list = reader_of(value);
    struct bytes option;
    while (take_element(&list, ",", &option)) {
        if (text_is(option, "close"))
            parser->close = true;
        else if (text_is(option, "keep-alive"))
            parser->request->keep_alive = true;
    }
    return true;
}

/* A client that expects 100 Continue may or may not send its body after the answer. */
static bool field_expect(struct parser *parser, struct bytes value)
{
    (void)value;
    parser->expects = true;
    return true;
}

/* "q=0.8" in thousandths; what is none counts as 1. */
static int quality_of(struct bytes parameter)
{
    if (parameter.size < 3 || strncasecmp((const char *)parameter.data, "q=", 2) != 0)
        return 1000;
    int quality = parameter.data[2] == '1' ? 1000 : 0, unit = 100;
    for (size_t i = 4; i < parameter.size && unit > 0; i++, unit /= 10)
        if (parameter.data[i] >= '0' && parameter.data[i] <= '9')
            quality += (parameter.data[i] - '0') * unit;
    return quality > 1000 ? 1000 : quality;
}

static bool field_accept(struct parser *parser, struct bytes value)
{
    struct reader list = reader_of(value);
    struct bytes range, type, parameter;
    while (take_element(&list, ",", &range)) {
        struct reader parts = reader_of(range);
        int quality = 1000;
        if (!take_element(&parts, ";", &type))
            continue;
        while (take_element(&parts, ";", &parameter))
            quality = quality_of(parameter) < quality ? quality_of(parameter) : quality;
        if (text_is(type, "text/html"))
            parser->html_quality = quality;
        else if (text_is(type, "application/json"))
            parser->json_quality = quality;
    }
    return true;
}

static const struct {
    const char *name;
    bool (*parse)(struct parser *parser, struct bytes value);
} FIELDS[] = {
    {"host", field_host},
    {"content-length", field_content_length},
    {"transfer-encoding", field_transfer_encoding},
    {"connection", field_connection},
    {"expect", field_expect},
    {"accept", field_accept},
};

static bool parse_field(struct parser *parser, struct bytes line)
{
    struct reader from = reader_of(line);
    struct bytes name, value;
    if (!take_before(&from, ":", &name) || !is_token(name) || !read_bytes(&from, from.left, &value) ||
        !is_field_text(value))
        return parser_fail(parser, 400);
    for (size_t i = 0; i < sizeof FIELDS / sizeof *FIELDS; i++)
        if (text_is(name, FIELDS[i].name))
            return FIELDS[i].parse(parser, text_trim(value));
    return true;
}

/* ---- The request. */

static bool parse_version(struct parser *parser, struct bytes version)
{
    if (version.size != 8 || memcmp(version.data, "HTTP/", 5) != 0 || version.data[6] != '.')
        return parser_fail(parser, 400);
    if (version.data[5] != '1')
        return parser_fail(parser, 505);
    parser->http11 = version.data[7] != '0';
    parser->request->keep_alive = parser->http11;
    return true;
}

static bool parse_request_line(struct parser *parser, struct bytes line)
{
    struct reader from = reader_of(line);
    struct bytes method, target, version;
    if (!take_before(&from, " ", &method) || !is_token(method) || !take_before(&from, " ", &target) ||
        target.size == 0 || !is_field_text(target) || !read_bytes(&from, from.left, &version))
        return parser_fail(parser, 400);
    if (!parse_version(parser, version))
        return false;
    parser->request->target = target;
    parser->request->head_only = bytes_equal(method, bytes_of("HEAD", 4));
    if (!parser->request->head_only && !bytes_equal(method, bytes_of("GET", 3)))
        parser->request->status = 405;
    return true;
}

static bool parse_fields(struct parser *parser, struct reader *from)
{
    struct bytes line;
    while (take_before(from, "\r\n", &line)) {
        if (line.size == 0)
            return true;
        if (!parse_field(parser, line))
            return false;
    }
    return parser_fail(parser, 400);
}

struct http_request http_request_parse(struct bytes head)
{
    struct http_request request = {.status = 200};
    struct parser parser = {.request = &request};
    struct reader from = reader_of(head);
    struct bytes line = {0};
    bool whole = (take_before(&from, "\r\n", &line) || parser_fail(&parser, 400)) &&
                 parse_request_line(&parser, line) && parse_fields(&parser, &from) &&
                 (parser.hosts == 1 || !parser.http11 || parser_fail(&parser, 400));
    request.html = parser.html_quality > parser.json_quality;
    request.keep_alive =
        whole && request.keep_alive && !parser.close && !(parser.expects && request.body > 0);
    if (!whole)
        request.body = 0;
    return request;
}
