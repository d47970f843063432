#include "proxy/key_budget.h"

#define ONE 1000

struct key_budget key_budget_of(uint32_t share, uint32_t burst)
{
    return (struct key_budget){.share = share, .burst = burst, .saved = (uint64_t)burst * ONE};
}

void key_budget_earn(struct key_budget *budget)
{
    const uint64_t most = (uint64_t)budget->burst * ONE;
    budget->saved += budget->share;
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
