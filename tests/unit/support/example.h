/* The configurations in conf/, as they are and with everything in them that is commented out. */
#ifndef KEYLESS_TESTS_UNIT_SUPPORT_EXAMPLE_H
#define KEYLESS_TESTS_UNIT_SUPPORT_EXAMPLE_H

/* A whole file. To be freed. */
char *example_read(const char *path);
/* In place: "#setting: value" becomes "setting: value"; prose ("# Text") stays. Returns how many. */
unsigned example_uncomment(char *text);
/* Every line of `of` that is no comment and no empty list must be in `in`, as a whole line. Returns the first
 * that is not, or NULL; to be freed. */
char *example_missing_line(const char *of, const char *in);

#endif
