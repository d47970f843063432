#include "common/config_table.h"

#include <stdio.h>
#include <string.h>

#include <event2/buffer.h>

#define LINE_WIDTH   78
#define PATH_WRITTEN 256

/* ---- Two forms: plain text for a terminal, roff (man macros) for man pages. */

/* Words of text, wrapped and indented by four. */
static void text_paragraph(const char *text, struct evbuffer *to)
{
    size_t column = 0;
    while (*text != '\0') {
        size_t size = strcspn(text, " ");
        if (column > 0 && column + 1 + size > LINE_WIDTH) {
            (void)evbuffer_add(to, "\n", 1);
            column = 0;
        }
        (void)evbuffer_add_printf(to, "%s%.*s", column == 0 ? "    " : " ", (int)size, text);
        column += (column == 0 ? 4 : 1) + size;
        text += size;
        text += strspn(text, " ");
    }
    (void)evbuffer_add(to, "\n", 1);
}

static void text_heading(const char *path, struct evbuffer *to)
{
    (void)evbuffer_add_printf(to, "%s\n", path);
}

/* Backslashes and hyphens escaped; a line that begins with a dot or quote is no request. */
static void roff_escaped(const char *text, struct evbuffer *to)
{
    if (*text == '.' || *text == '\'')
        (void)evbuffer_add_printf(to, "\\&");
    for (; *text != '\0'; text++) {
        if (*text == '\\')
            (void)evbuffer_add_printf(to, "\\e");
        else if (*text == '-')
            (void)evbuffer_add_printf(to, "\\-");
        else
            (void)evbuffer_add(to, text, 1);
    }
}

static void roff_paragraph(const char *text, struct evbuffer *to)
{
    roff_escaped(text, to);
    (void)evbuffer_add_printf(to, "\n.br\n");
}

static void roff_heading(const char *path, struct evbuffer *to)
{
    (void)evbuffer_add_printf(to, ".TP\n.B \"");
    roff_escaped(path, to);
    (void)evbuffer_add_printf(to, "\"\n");
}

static const struct manual_form {
    void (*heading)(const char *path, struct evbuffer *to);
    void (*paragraph)(const char *text, struct evbuffer *to);
} FORMS[] = {
    [CONFIG_MANUAL_TEXT] = {text_heading, text_paragraph},
    [CONFIG_MANUAL_ROFF] = {roff_heading, roff_paragraph},
};

/* ---- Rows. */

/* "Value: a whole number from 1 to 1024 or auto (processes). Default: auto." */
static void write_facts(const struct config_row *row, const struct manual_form *form, struct evbuffer *to)
{
    char expected[CONFIG_EXPECT_SIZE] = "";
    char facts[2 * CONFIG_EXPECT_SIZE + 128];
    config_expect(row, expected);
    const char *many = row->table == NULL && (row->list || row->type->gathers) ? "a list, each " : "";
    int used =
        snprintf(facts, sizeof facts, "Value: %s%s%s%s%s.", many, expected, row->unit != NULL ? " (" : "",
                 row->unit != NULL ? row->unit : "", row->unit != NULL ? ")" : "");
    size_t left = sizeof facts - (size_t)used;
    if (row->required)
        (void)snprintf(facts + used, left, " Required.");
    else if (row->fallback != NULL)
        (void)snprintf(facts + used, left, " Default: %s.", row->fallback);
    form->paragraph(facts, to);
}

static void write_table(const struct config_table *table, const char *prefix, const struct manual_form *form,
                        struct evbuffer *to)
{
    for (size_t i = 0; i < table->row_count; i++) {
        const struct config_row *row = &table->rows[i];
        char path[PATH_WRITTEN];
        (void)snprintf(path, sizeof path, "%s%s", prefix, row->path);
        form->heading(path, to);
        write_facts(row, form, to);
        if (row->help != NULL)
            form->paragraph(row->help, to);
        if (row->table == NULL)
            continue;
        char inner[PATH_WRITTEN];
        (void)snprintf(inner, sizeof inner, "%s%s%s", prefix, row->path,
                       row->table->named ? ".NAME." : "[].");
        write_table(row->table, inner, form, to);
    }
}

void config_manual(const struct config_table *table, enum config_manual format, struct evbuffer *to)
{
    write_table(table, "", &FORMS[format], to);
}
