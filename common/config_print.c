#include "common/config_table.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <event2/buffer.h>

#include "common/config_scope.h"

/* Block style, one setting a line, indented by two; what is not set stands there as a comment. */
struct printer {
    struct evbuffer *to;
    unsigned indent;
    bool item; /* the next line is the first of a list's item */
};

static void line_start(struct printer *printer)
{
    unsigned spaces = printer->indent - (printer->item ? 2 : 0);
    (void)evbuffer_add_printf(printer->to, "%*s%s", (int)spaces, "", printer->item ? "- " : "");
    printer->item = false;
}

static void key_start(struct printer *printer, const char *comment, const char *key, size_t size)
{
    line_start(printer);
    (void)evbuffer_add_printf(printer->to, "%s%.*s:", comment, (int)size, key);
}

static const uint8_t *list_elements(const struct config_row *row, const void *object, size_t *count)
{
    const uint8_t *elements = NULL;
    memcpy(&elements, (const uint8_t *)object + row->offset, sizeof elements);
    memcpy(count, (const uint8_t *)object + row->count_offset, sizeof *count);
    return elements;
}

/* ---- Rows without a table. */

static void print_list(const struct config_row *row, const void *object, struct evbuffer *to)
{
    size_t count = 0;
    const uint8_t *elements = list_elements(row, object, &count);
    (void)evbuffer_add(to, "[", 1);
    for (size_t i = 0; i < count; i++) {
        if (i > 0)
            (void)evbuffer_add(to, ", ", 2);
        (void)row->type->print(row, elements + i * row->size, to);
    }
    (void)evbuffer_add(to, "]", 1);
}

static void print_value(struct printer *printer, const struct config_row *row, const char *key,
                        const void *object)
{
    struct evbuffer *value = evbuffer_new();
    bool set = true;
    if (value == NULL)
        return;
    if (row->list)
        print_list(row, object, value);
    else
        set = row->type->print(row, (const uint8_t *)object + row->offset, value);
    key_start(printer, set ? "" : "# ", key, strlen(key));
    (void)evbuffer_add(printer->to, " ", 1);
    if (set)
        (void)evbuffer_add_buffer(printer->to, value);
    else
        (void)evbuffer_add_printf(printer->to, "not set");
    (void)evbuffer_add(printer->to, "\n", 1);
    evbuffer_free(value);
}

/* ---- Rows with a table. */

static void print_rows(struct printer printer, const struct config_table *table, const void *object);

static void print_elements(struct printer *printer, const struct config_row *row, const char *key,
                           const void *object)
{
    size_t count = 0;
    const uint8_t *elements = list_elements(row, object, &count);
    key_start(printer, "", key, strlen(key));
    (void)evbuffer_add_printf(printer->to, "%s\n", count > 0 ? "" : row->table->named ? " {}" : " []");
    struct printer name_line = {.to = printer->to, .indent = printer->indent + 2};
    struct printer inner = {.to = printer->to, .indent = printer->indent + 4, .item = !row->table->named};
    for (size_t i = 0; i < count; i++) {
        const uint8_t *element = elements + i * row->size;
        if (row->table->named) {
            const char *name = NULL;
            memcpy(&name, element + row->table->name_offset, sizeof name);
            line_start(&name_line);
            config_print_word(name, printer->to);
            (void)evbuffer_add(printer->to, ":\n", 2);
        }
        print_rows(inner, row->table, element);
    }
}

/* ---- Tables. */

/* Opens the mappings that this row's path enters and the last one's did not. Leaves the indentation at the
 * row's own. Returns the row's name in the innermost. */
static const char *enter_groups(struct printer *printer, const char *last, const char *path)
{
    const char *name = path + config_common_group(last, path);
    for (const char *dot = path; (dot = strchr(dot, '.')) != NULL && dot < name; dot++)
        printer->indent += 2;
    for (const char *dot; (dot = strchr(name, '.')) != NULL; name = dot + 1) {
        key_start(printer, "", name, (size_t)(dot - name));
        (void)evbuffer_add(printer->to, "\n", 1);
        printer->indent += 2;
    }
    return name;
}

static void print_rows(struct printer printer, const struct config_table *table, const void *object)
{
    unsigned indent = printer.indent;
    const char *last = "";
    for (size_t i = 0; i < table->row_count; i++) {
        const struct config_row *row = &table->rows[i];
        printer.indent = indent;
        const char *key = enter_groups(&printer, last, row->path);
        if (row->table != NULL)
            print_elements(&printer, row, key, object);
        else
            print_value(&printer, row, key, object);
        last = row->path;
    }
}

void config_print(const struct config_table *table, const void *object, struct evbuffer *to)
{
    print_rows((struct printer){.to = to}, table, object);
}
