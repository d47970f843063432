#include "common/config_yaml.h"

#include <stdio.h>
#include <string.h>

/* A glob without quotes is an alias to YAML, and the first thing that people get wrong. */
static const char ALIAS[] = "got an alias (*), expected a value; text that starts with * needs quotes";
static const char ANCHOR[] = "got an anchor (&), expected a value; text that starts with & needs quotes";
static const char TAG[] = "got a tag (!), expected a value; text that starts with ! needs quotes";

/* ---- Errors. */

static enum result refuse_at(const char *file, yaml_mark_t mark, struct failure *why, const char *text)
{
    return failure_set(why, RESULT_CONFIG, "%s:%zu:%zu: %s", file, mark.line + 1, mark.column + 1, text);
}

/* libyaml gives the place of octets it cannot read as an offset only. */
static yaml_mark_t mark_of_offset(struct bytes text, size_t offset)
{
    yaml_mark_t mark = {0};
    for (size_t i = 0; i < offset && i < text.size; i++) {
        if (text.data[i] == '\n') {
            mark.line += 1;
            mark.column = 0;
        } else if ((text.data[i] & 0xc0) != 0x80) {
            mark.column += 1;
        }
    }
    return mark;
}

/* Whether the character at mark is a tab: libyaml's words for it ("found character that cannot start any
 * token") help nobody. A mark's index counts characters. */
static bool is_tab(struct bytes text, yaml_mark_t mark)
{
    size_t characters = 0;
    for (size_t i = 0; i < text.size; i++) {
        if ((text.data[i] & 0xc0) == 0x80)
            continue;
        if (characters++ == mark.index)
            return text.data[i] == '\t';
    }
    return false;
}

static enum result refuse_reading(const char *file, const yaml_parser_t *parser, struct bytes text,
                                  struct failure *why)
{
    char sentence[128];
    (void)snprintf(sentence, sizeof sentence, "not UTF-8 text: %s", parser->problem);
    return refuse_at(file, mark_of_offset(text, parser->problem_offset), why, sentence);
}

static enum result refuse_syntax(const char *file, const yaml_parser_t *parser, struct bytes text,
                                 struct failure *why)
{
    if (parser->error == YAML_MEMORY_ERROR || parser->problem == NULL)
        return failure_set(why, RESULT_SYSTEM, "%s: out of memory", file);
    if (parser->error == YAML_READER_ERROR)
        return refuse_reading(file, parser, text, why);
    if (is_tab(text, parser->problem_mark))
        return refuse_at(file, parser->problem_mark, why,
                         "got a tab, expected spaces (YAML has no tabs here)");
    if (parser->context != NULL && strcmp(parser->context, "while scanning an alias") == 0)
        return refuse_at(file, parser->problem_mark, why, ALIAS);
    char sentence[256];
    (void)snprintf(sentence, sizeof sentence, "not YAML: %s%s%s", parser->problem,
                   parser->context != NULL ? " " : "", parser->context != NULL ? parser->context : "");
    return refuse_at(file, parser->problem_mark, why, sentence);
}

/* ---- The first pass: structure, event by event, before anything of the file's size is built. */

struct structure {
    const char *file;
    unsigned documents, nodes, depth;
    struct failure *why;
};

static enum result node_seen(struct structure *seen, yaml_mark_t at, const yaml_char_t *anchor,
                             const yaml_char_t *tag)
{
    if (anchor != NULL)
        return refuse_at(seen->file, at, seen->why, ANCHOR);
    if (tag != NULL)
        return refuse_at(seen->file, at, seen->why, TAG);
    if (++seen->nodes > CONFIG_NODES_MAX)
        return refuse_at(seen->file, at, seen->why, "too large, expected at most 100000 values");
    return RESULT_OK;
}

static enum result collection_seen(struct structure *seen, yaml_mark_t at, const yaml_char_t *anchor,
                                   const yaml_char_t *tag)
{
    if (++seen->depth > CONFIG_DEPTH_MAX)
        return refuse_at(seen->file, at, seen->why, "nested too deeply, expected at most 16 levels");
    return node_seen(seen, at, anchor, tag);
}

static enum result event_seen(struct structure *seen, const yaml_event_t *event)
{
    yaml_mark_t at = event->start_mark;
    switch (event->type) {
    case YAML_DOCUMENT_START_EVENT:
        if (++seen->documents > 1)
            return refuse_at(seen->file, at, seen->why, "got a second document (---), expected only one");
        return RESULT_OK;
    case YAML_ALIAS_EVENT:
        return refuse_at(seen->file, at, seen->why, ALIAS);
    case YAML_SCALAR_EVENT:
        return node_seen(seen, at, event->data.scalar.anchor, event->data.scalar.tag);
    case YAML_SEQUENCE_START_EVENT:
        return collection_seen(seen, at, event->data.sequence_start.anchor, event->data.sequence_start.tag);
    case YAML_MAPPING_START_EVENT:
        return collection_seen(seen, at, event->data.mapping_start.anchor, event->data.mapping_start.tag);
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT:
        seen->depth -= 1;
        return RESULT_OK;
    default:
        return RESULT_OK;
    }
}

static void parser_open(yaml_parser_t *parser, struct bytes text)
{
    yaml_parser_set_input_string(parser, text.data, text.size);
    /* No UTF-16, whatever the byte order mark says. */
    yaml_parser_set_encoding(parser, YAML_UTF8_ENCODING);
}

static enum result check_structure(const char *file, struct bytes text, struct failure *why)
{
    CLEANUP(yaml_parser_delete) yaml_parser_t parser = {0};
    if (!yaml_parser_initialize(&parser))
        return failure_set(why, RESULT_SYSTEM, "%s: out of memory", file);
    parser_open(&parser, text);
    struct structure seen = {.file = file, .why = why};
    for (bool end = false; !end;) {
        CLEANUP(yaml_event_delete) yaml_event_t event = {0};
        if (!yaml_parser_parse(&parser, &event))
            return refuse_syntax(file, &parser, text, why);
        enum result result = event_seen(&seen, &event);
        if (result != RESULT_OK)
            return result;
        end = event.type == YAML_STREAM_END_EVENT;
    }
    if (seen.documents == 0)
        return failure_set(why, RESULT_CONFIG, "%s: got an empty file, expected settings", file);
    return RESULT_OK;
}

/* ---- The second pass: the document. */

static enum result load(const char *file, struct bytes text, yaml_document_t *document, struct failure *why)
{
    CLEANUP(yaml_parser_delete) yaml_parser_t parser = {0};
    if (!yaml_parser_initialize(&parser))
        return failure_set(why, RESULT_SYSTEM, "%s: out of memory", file);
    parser_open(&parser, text);
    if (!yaml_parser_load(&parser, document))
        return refuse_syntax(file, &parser, text, why);
    return RESULT_OK;
}

/* Editors of Windows put one there; libyaml takes it only where it likes what follows. */
static struct bytes without_byte_order_mark(struct bytes text)
{
    static const uint8_t MARK[] = {0xef, 0xbb, 0xbf};
    if (text.size < sizeof MARK || memcmp(text.data, MARK, sizeof MARK) != 0)
        return text;
    return bytes_of(text.data + sizeof MARK, text.size - sizeof MARK);
}

enum result config_yaml_load(const char *file, struct bytes text, yaml_document_t *document,
                             struct failure *why)
{
    text = without_byte_order_mark(text);
    if (text.size > CONFIG_FILE_MAX)
        return failure_set(why, RESULT_CONFIG, "%s: got %zu octets, expected at most 4 MB", file, text.size);
    enum result result = check_structure(file, text, why);
    return result != RESULT_OK ? result : load(file, text, document, why);
}

/* ---- Nodes. */

bool config_yaml_is(const yaml_node_t *node, const char *text, size_t size)
{
    return node != NULL && node->type == YAML_SCALAR_NODE && node->data.scalar.length == size &&
           memcmp(node->data.scalar.value, text, size) == 0;
}

bool config_yaml_is_nothing(const yaml_node_t *node)
{
    return config_yaml_is(node, "", 0) && node->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
}

yaml_node_t *config_yaml_find(yaml_document_t *document, yaml_node_t *node, const char *key, size_t key_size)
{
    if (node == NULL || node->type != YAML_MAPPING_NODE)
        return NULL;
    const yaml_node_pair_t *end = node->data.mapping.pairs.top;
    for (const yaml_node_pair_t *pair = node->data.mapping.pairs.start; pair < end; pair++) {
        if (config_yaml_is(yaml_document_get_node(document, pair->key), key, key_size))
            return yaml_document_get_node(document, pair->value);
    }
    return NULL;
}

yaml_node_t *config_yaml_item(yaml_document_t *document, yaml_node_t *node, size_t index)
{
    if (node == NULL || node->type != YAML_SEQUENCE_NODE)
        return index == 0 ? node : NULL;
    size_t count = (size_t)(node->data.sequence.items.top - node->data.sequence.items.start);
    return index < count ? yaml_document_get_node(document, node->data.sequence.items.start[index]) : NULL;
}

/* ---- Values in errors: one line, whatever stands in the file. */

/* Appends one octet escaped; false when it did not fit. */
static bool show_octet(unsigned char octet, char *to, size_t room, size_t *used)
{
    char escaped[8];
    if (octet == '"' || octet == '\\')
        (void)snprintf(escaped, sizeof escaped, "\\%c", octet);
    else if (octet == '\n')
        (void)snprintf(escaped, sizeof escaped, "\\n");
    else if (octet < 0x20 || octet == 0x7f)
        (void)snprintf(escaped, sizeof escaped, "\\x%02x", octet);
    else
        (void)snprintf(escaped, sizeof escaped, "%c", octet);
    size_t size = strlen(escaped);
    if (*used + size >= room)
        return false;
    (void)snprintf(to + *used, room - *used, "%s", escaped);
    *used += size;
    return true;
}

/* Takes back a UTF-8 sequence that was cut in two. */
static size_t whole_characters(const char *text, size_t size)
{
    size_t start = size;
    while (start > 0 && ((unsigned char)text[start - 1] & 0xc0) == 0x80)
        start--;
    return start > 0 && ((unsigned char)text[start - 1] & 0x80) != 0 ? start - 1 : size;
}

static void show_scalar(const yaml_node_t *node, char shown[static CONFIG_VALUE_SHOWN])
{
    const size_t room = CONFIG_VALUE_SHOWN - sizeof "...\"";
    size_t used = 0, i = 0;
    shown[used++] = '"';
    while (i < node->data.scalar.length && show_octet(node->data.scalar.value[i], shown, room, &used))
        i++;
    if (i < node->data.scalar.length)
        used = whole_characters(shown, used);
    (void)snprintf(shown + used, CONFIG_VALUE_SHOWN - used, i < node->data.scalar.length ? "...\"" : "\"");
}

const char *config_yaml_show(const yaml_node_t *node, char shown[static CONFIG_VALUE_SHOWN])
{
    if (config_yaml_is_nothing(node))
        (void)snprintf(shown, CONFIG_VALUE_SHOWN, "nothing");
    else if (node->type == YAML_SCALAR_NODE)
        show_scalar(node, shown);
    else
        (void)snprintf(shown, CONFIG_VALUE_SHOWN, node->type == YAML_SEQUENCE_NODE ? "a list" : "a mapping");
    return shown;
}
