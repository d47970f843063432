#include "tests/unit/support/example.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define EXAMPLE_MAX 65536

char *example_read(const char *path)
{
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    char *text = calloc(1, EXAMPLE_MAX);
    assert_non_null(text);
    assert_in_range(fread(text, 1, EXAMPLE_MAX - 1, file), 1, EXAMPLE_MAX - 2);
    assert_int_equal(fclose(file), 0);
    return text;
}

unsigned example_uncomment(char *text)
{
    unsigned count = 0;
    for (char *line = text; line != NULL && *line != '\0';) {
        char *start = line + strspn(line, " ");
        /* A setting, or the second line of one: two spaces. */
        if (start[0] == '#' && ((start[1] >= 'a' && start[1] <= 'z') || strncmp(start + 1, "  ", 2) == 0)) {
            memmove(start, start + 1, strlen(start + 1) + 1);
            count++;
        }
        line = strchr(line, '\n');
        line = line != NULL ? line + 1 : NULL;
    }
    return count;
}

/* A comment ("# file: not set"), or a list with nothing in it: the example has something there. */
static bool is_unset(const char *line)
{
    size_t size = strlen(line);
    return line[strspn(line, " ")] == '#' || (size > 4 && strcmp(line + size - 4, " []\n") == 0);
}

char *example_missing_line(const char *of, const char *in)
{
    while (*of != '\0') {
        size_t size = strcspn(of, "\n");
        char *line = strndup(of, size + 1);
        assert_non_null(line);
        if (!is_unset(line) && strstr(in, line) == NULL)
            return line;
        free(line);
        of += size + (of[size] != '\0');
    }
    return NULL;
}
