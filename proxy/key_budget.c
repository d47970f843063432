#include "proxy/key_budget.h"

/* As many as a second has microseconds, so that what a second brings adds up without a remainder. */
#define ONE UINT64_C(1000000)

struct key_budget key_budget_of(uint32_t share, uint32_t a_second, uint32_t burst)
{
    return (struct key_budget){.share = share, .a_second = a_second, .burst = burst, .saved = burst * ONE};
}

void key_budget_earn(struct key_budget *budget, uint64_t now)
{
    const uint64_t most = budget->burst * ONE;
    budget->saved += budget->share * ONE / 1000 + (now - budget->earned) * budget->a_second;
    budget->earned = now;
    if (budget->saved > most)
        budget->saved = most;
}

bool key_budget_spend(struct key_budget *budget)
{
    if (budget->saved < ONE)
        return false;
    budget->saved -= ONE;
    return true;
}

void key_budget_return(struct key_budget *budget)
{
    budget->saved += ONE;
}
