/* What may be asked twice: a share of all requests, so that trouble is never made worse by asking more. Plain
 * values; times are microseconds of clock_now. */
#ifndef KEYLESS_PROXY_KEY_BUDGET_H
#define KEYLESS_PROXY_KEY_BUDGET_H

#include <stdbool.h>
#include <stdint.h>

struct key_budget {
    uint32_t share;    /* per mille of all requests */
    uint32_t a_second; /* and as many, however few requests there are */
    uint32_t burst;    /* as many at once, when there were none for long */
    uint64_t saved;    /* millionths */
    uint64_t earned;   /* when it was last added to */
};

/* Full. */
struct key_budget key_budget_of(uint32_t share, uint32_t a_second, uint32_t burst);
/* One request more. */
void key_budget_earn(struct key_budget *budget, uint64_t now);
/* One may be asked twice. False: it may not. */
bool key_budget_spend(struct key_budget *budget);
/* It was not, after all. */
void key_budget_return(struct key_budget *budget);

#endif
