/* Whether a table is sound. A program's tables are constants, so unit tests ask once; a wrong size here would
 * be a write beyond a member there. */
#include <stdio.h>
#include <string.h>

#include "common/config_scope.h"

/* Room for a value of any type while its default is tried. */
union any_value {
    struct address address;
    uint64_t number;
    void *pointer;
    uint8_t octets[512];
};

static enum result unsound(const struct config_row *row, const char *what, struct failure *why)
{
    return failure_set(why, RESULT_CONFIG, "row \"%s\": %s", row->path, what);
}

/* No path twice, none that is also a mapping, and the rows of one mapping together. */
static enum result check_path(const struct config_table *table, size_t at, struct failure *why)
{
    const struct config_row *row = &table->rows[at];
    for (size_t i = 0; i < at; i++) {
        const char *other = table->rows[i].path;
        size_t size = strlen(other);
        if (strcmp(other, row->path) == 0)
            return unsound(row, "stands there twice", why);
        if (strncmp(other, row->path, size) == 0 && row->path[size] == '.')
            return unsound(row, "is in a mapping that is also a value", why);
        if (strncmp(other, row->path, strlen(row->path)) == 0 && other[strlen(row->path)] == '.')
            return unsound(row, "is a value that is also a mapping", why);
        if (config_common_group(other, row->path) > config_common_group(table->rows[at - 1].path, row->path))
            return unsound(row, "stands apart from its mapping", why);
    }
    return RESULT_OK;
}

static enum result check_default(const struct config_row *row, struct failure *why)
{
    if (row->fallback == NULL || row->list || row->type->gathers)
        return RESULT_OK;
    const struct config_source source = {.file = "default", .directory = "/"};
    union any_value value = {.octets = {0}};
    struct failure found = {.kind = RESULT_OK};
    enum result result = row->type->parse(row, &source, row->fallback, &value, &found);
    if (result == RESULT_OK && row->check != NULL)
        result = row->check(row, &value, &found);
    if (row->type->release != NULL)
        row->type->release(&value);
    return result == RESULT_OK ? RESULT_OK : unsound(row, "its default does not parse", why);
}

static enum result check_row(const struct config_row *row, struct failure *why)
{
    if ((row->type == NULL) == (row->table == NULL))
        return unsound(row, "needs either a type or a table", why);
    if (row->help == NULL)
        return unsound(row, "has no help", why);
    if (row->required && row->fallback != NULL)
        return unsound(row, "is required and has a default", why);
    if (row->table != NULL) {
        if (!row->list || row->size != row->table->size)
            return unsound(row, "is no list of the table's structs", why);
        return config_table_check(row->table, why);
    }
    if (row->size != row->type->size || row->size > sizeof(union any_value))
        return unsound(row, "its member's size is not its type's", why);
    if ((row->type == &CONFIG_CHOICE || row->type == &CONFIG_FLAGS) && row->words == NULL)
        return unsound(row, "has no words", why);
    return check_default(row, why);
}

enum result config_table_check(const struct config_table *table, struct failure *why)
{
    for (size_t i = 0; i < table->row_count; i++) {
        enum result result = check_path(table, i, why);
        if (result == RESULT_OK)
            result = check_row(&table->rows[i], why);
        if (result != RESULT_OK)
            return result;
    }
    return RESULT_OK;
}
